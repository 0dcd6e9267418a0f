"""Times at which a training writes its state: every so many steps or minutes, and where it is told to end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cleft_bundle.distributed import gather_lists, world_size
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

_TOGETHER = 10  # steps between two agreements of several processes, which have a clock and signals of their own


class WhenToSave:
    """Times at which a training writes its state.

    A SIGTERM, by which a scheduler announces that it takes the machine away, lets a run that writes states write one
    and end.

    Args:
        steps: between two writings. 0: not by steps.
        minutes: between two writings. None: not by time.

    Attributes:
        end: whether all processes know that the run is to end.

    Raises:
        BundleError: where a value is out of range.
    """

    def __init__(self, steps: int, minutes: float | None = None) -> None:
        if steps < 0:
            raise BundleError(f"checkpoint_interval: expected 0 or more, got {steps}")
        if minutes is not None and minutes <= 0:
            raise BundleError(f"checkpoint_every_minutes: expected a number above 0, or null, got {minutes}")
        self.steps, self.minutes = steps, minutes
        self.end = False
        self._told = False
        self._last = time.monotonic()

    @property
    def ever(self) -> bool:
        """True where any state is written."""
        return self.steps > 0 or self.minutes is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGTERM, where any state is written and Python lets this thread listen."""
        if not self.ever or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self._last = time.monotonic()

    def asked(self, step: int) -> bool:
        """True where a state is wanted after a step, counted from 1; several processes give the same answer."""
        by_steps = self.steps > 0 and step % self.steps == 0
        late = self.minutes is not None and time.monotonic() - self._last >= 60 * self.minutes
        told = self._told
        if world_size() > 1:
            if step % _TOGETHER:
                return by_steps
            told, late = (any(answers) for answers in zip(*gather_lists([(told, late)]), strict=True))
        self.end = self.end or told
        return by_steps or late or told

    def _tell(self, number: int, frame: Any) -> None:
        self._told = True
        logger.warning("SIGTERM: the run ends as soon as its state is written")
