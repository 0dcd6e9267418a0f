"""Parts of a training step by their names, and the time that each takes where somebody asks for it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import record_function

REST = "rest"


class Clock:
    """A clock of which one part at a time is running.

    On a GPU it measures what the device does, by events in its stream, and waits for it only when it is read.

    Args:
        device: what computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def switch(self, name: str) -> str:
        """Let another part run from now on; return the one that was running."""
        before = self._marks[-1][0] if self._marks else REST
        self._marks.append((name, self._now()))
        return before

    def seconds(self) -> dict[str, float]:
        """Time of each part up to the last switch."""
        if self._on_gpu:
            torch.cuda.synchronize()
        found: dict[str, float] = defaultdict(float)
        for (name, begun), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            found[name] += _between(begun, ended)
        return dict(found)

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


_running: Clock | None = None


def run(clock: Clock | None) -> None:
    """Let a clock measure the parts of this process from now on; None: nothing does."""
    global _running  # noqa: PLW0603 - parts lie in many rooms, and a process takes one step at a time
    _running = clock


@contextmanager
def timed(name: str) -> Iterator[None]:
    """A part of a step, whose own parts are not counted to it. Without a clock nothing is done."""
    if _running is None:
        yield
        return
    clock, before = _running, _running.switch(name)
    try:
        with record_function(name):
            yield
    finally:
        clock.switch(before)


def at_gradient(tensor: object, name: str) -> None:
    """Let a part begin when the backward pass comes to a tensor, where there is a clock."""
    clock = _running
    if clock is None or not isinstance(tensor, torch.Tensor) or not tensor.requires_grad:
        return

    def begins(_: torch.Tensor) -> None:  # what it returned would take the gradient's place
        clock.switch(name)

    tensor.register_hook(begins)


def _between(begun: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    if isinstance(begun, float) or isinstance(ended, float):
        return float(ended) - float(begun)  # type: ignore[arg-type]  # of a clock both are of one kind
    return begun.elapsed_time(ended) / 1000
