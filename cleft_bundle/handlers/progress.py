"""Progress on the console."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from cleft_bundle.distributed import rank
from cleft_bundle.handlers.updates import last_batch
from cleft_bundle.progress import refresh_interval, show


class ProgressHandler:
    """One bar over the whole run: loss, rate and time left. In a log file it prints a line every half minute.

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

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
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
        if self.show_loss:
            state, loss = engine.state, engine.state.output["loss"].item()
            self.bar.set_postfix_str(f"epoch {state.epoch}/{state.max_epochs}, loss {loss:.3f}", refresh=False)
        batch = engine.state.batch
        self.bar.update(1 if self.images is None else len(batch["path"]) + len(batch["failures"]))

    def _close(self) -> None:
        self.bar.close()
