"""A profile of the training step: where its time goes, as a table and as a trace."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from cleft_bundle import parts
from cleft_bundle.best_effort import best_effort
from cleft_bundle.distributed import rank
from cleft_bundle.files import replacing
from cleft_bundle.handlers.record import RunRecord
from cleft_bundle.handlers.updates import last_batch

logger = logging.getLogger(__name__)

WAIT, MEASURED, TRACED = 3, 20, 3  # steps
#: What a step does besides the towers and its optimizer.
ASIDE = ("loss", "packing", "tokenising", "logging", "checks")
#: What is no part of a step.
APART = ("validation", "saving")
TABLE, TRACE = "profile.md", "profile_trace.json"


class StepProfile:
    """Measure the parts of 20 steps after the first three, and then trace three more by torch's profiler.

    A trace slows what it traces, so that the table is of other steps. Both are of the first process. A training that is
    too short for all is measured in what steps it has, and traced where some are left.

    Args:
        record: the run's, whose folder of output gets ``profile.md`` and ``profile_trace.json`` (for chrome://tracing
            or ui.perfetto.dev), as its run in MLflow does.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.folder = Path(record.output_dir)
        self._first = self._taken = self._measured = 0
        self._clock: parts.Clock | None = None
        self._torch: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, behind all handlers that are to be measured."""
        if rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._switch, "waiting for data")
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._switch, "logging")
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _start(self, engine: Engine) -> None:
        left = last_batch(engine) - engine.state.iteration
        self._first = min(WAIT, left // 4)
        self._measured = max(1, min(MEASURED, left - self._first - TRACED - 1))
        activities = [torch.profiler.ProfilerActivity.CPU]
        if engine.state.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        schedule = torch.profiler.schedule(wait=self._first + self._measured, warmup=1, active=TRACED, repeat=1)
        self._torch = torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=self._write_trace)
        self._torch.start()
        if self._first == 0:
            self._begin(engine)

    def _begin(self, engine: Engine) -> None:
        self._clock = parts.Clock(engine.state.device)
        parts.run(self._clock)
        self._clock.switch("logging")

    def _switch(self, part: str) -> None:
        if self._clock is not None:
            self._clock.switch(part)

    def _step(self, engine: Engine) -> None:
        self._taken += 1
        if self._taken == self._first + self._measured:
            self._measure(engine)
        elif self._taken == self._first:
            self._begin(engine)
        if self._torch is not None:
            self._torch.step()

    def _measure(self, engine: Engine) -> None:
        if self._clock is None:
            return
        if self.record.tracker.handler is not None:
            self.record.tracker.handler.flush()  # what these steps have left to be logged
        self._clock.switch(parts.REST)
        parts.run(None)
        found, self._clock = self._clock.seconds(), None
        with best_effort("the profile"):
            text = table(found, self._measured, _where(engine))
            with replacing(self.folder / TABLE) as temporary:
                Path(temporary).write_text(text)
            logger.info(f"{text}\n{self.folder / TABLE}")
            self.record.tracker.keep([self.folder / TABLE])

    def _write_trace(self, profiler: Any) -> None:
        with best_effort("the trace"):
            profiler.export_chrome_trace(str(self.folder / TRACE))
            self.record.tracker.keep([self.folder / TRACE])

    def _end(self, engine: Engine) -> None:
        self._measure(engine)
        profiler, self._torch = self._torch, None
        if profiler is not None:
            with best_effort("the trace"):
                profiler.stop()


def table(seconds: Mapping[str, float], steps: int, where: str) -> str:
    """Markdown of the time that each part takes of a step.

    Args:
        seconds: by part, of all steps.
        steps: how many they are.
        where: what the steps were taken on.
    """
    own = {name: value for name, value in seconds.items() if name not in APART and value > 0}
    whole = sum(own.values())
    rows = sorted(own.items(), key=lambda row: -row[1])
    lines = [f"{steps} steps of {1000 * whole / steps:.1f} ms; {where}.", "", "| part | ms | % of a step |"]
    lines += ["| --- | ---: | ---: |"]
    lines += [f"| {name} | {1000 * value / steps:.2f} | {100 * value / whole:.2f} |" for name, value in rows]
    aside = sum(own.get(name, 0.0) for name in ASIDE)
    named = ", ".join(ASIDE)
    lines.append(f"| together: {named} | {1000 * aside / steps:.2f} | {100 * aside / whole:.2f} |")
    return "\n".join(lines) + "\n"


def _where(engine: Engine) -> str:
    device = engine.state.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    size, threads = len(engine.state.output["image"]), torch.get_num_threads()
    return f"{name}, {threads} threads, batch {size}, torch {torch.__version__}"
