"""Progress on the console."""

from __future__ import annotations

import time
from typing import Any

from ignite.engine import Engine, Events

from cleft_bundle.distributed import rank
from cleft_bundle.handlers.step_values import Losses
from cleft_bundle.handlers.updates import last_batch
from cleft_bundle.progress import refresh_interval, show


class ProgressHandler:
    """One bar over the whole run: loss, rate and time left. In a log file it prints a line every half minute.

    The loss is read when the bar is drawn, and at no other step.

    Args:
        description: what stands before the bar.
        show_loss: whether the engine's output carries a ``loss``.
        images: how many images there are; then they are counted, of batches by
            :func:`cleft_bundle.data.collate_readable`. None counts batches.
    """

    def __init__(self, description: str, show_loss: bool = False, images: int | None = None) -> None:
        self.description = description
        self.show_loss = show_loss
        self.images = images
        self.bar: Any = None
        self._drawn = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        if self.show_loss:
            Losses.of(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _start(self, engine: Engine) -> None:
        self.bar = show(
            description=self.description,
            unit="batch" if self.images is None else "image",
            hidden=rank() > 0,
            total=last_batch(engine) if self.images is None else self.images,
            initial=engine.state.iteration,
            maxinterval=refresh_interval(),
            leave=False,
        )

    def _advance(self, engine: Engine) -> None:
        state = engine.state
        if self.show_loss and time.monotonic() - self._drawn >= refresh_interval():
            self._drawn = time.monotonic()
            epochs = -(-last_batch(engine) // state.epoch_length)
            loss = Losses.of(engine).latest()
            self.bar.set_postfix_str(f"epoch {state.epoch}/{epochs}, loss {loss:.3f}", refresh=False)
        self.bar.update(1 if self.images is None else len(state.batch["path"]) + len(state.batch["failures"]))

    def _close(self) -> None:
        self.bar.close()
