"""Running the jobs of a plan: as child processes, each as a user would type it, and none twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Lock
from typing import Any

from cleft_bundle.errors import BundleError
from cleft_bundle.experiments import measured
from cleft_bundle.experiments.plan import DONE, Job, Plan
from cleft_bundle.files import save_text
from cleft_bundle.handlers.mlflow_handler import PARENT
from cleft_bundle.locks import FolderLock

LOG = "log.txt"
_SPENT = "spent.json"
_LAST = 4000  # bytes of a log in which its last line is looked for


class Runner:
    """Run what a plan still lacks.

    A job is done where its folder holds ``done.json`` of its fingerprint. Any other is begun anew, from an empty
    folder. One that fails takes only those with it that need it.

    Args:
        plan: the jobs.
        at_once: how many run side by side; the cores of the machine are shared out among them.
        parent: MLflow's run that theirs are children of; None: there is none.
        tell: receives lines of progress.
    """

    def __init__(
        self, plan: Plan, at_once: int = 1, parent: str | None = None, tell: Callable[[str], object] = print
    ) -> None:
        self.plan = plan
        self.at_once = at_once
        self.tell = tell
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        self.environment = {"OMP_NUM_THREADS": threads, **os.environ, **({PARENT: parent} if parent else {})}
        self.failed: dict[str, str] = {}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()

    def run(self) -> dict[str, str]:
        """Run the jobs, cell by cell.

        Returns:
            fingerprints of jobs that have failed, to the reason in one line.
        """
        order = {fingerprint: number for number, fingerprint in enumerate(self.plan.jobs)}
        sorter = TopologicalSorter({fingerprint: job.needs for fingerprint, job in self.plan.jobs.items()})
        sorter.prepare()
        self._left = [job for job in self.plan.jobs.values() if job.cost() is None]
        if found := len(order) - len(self._left):
            self.tell(f"{found} of {len(order)} runs are done already")
        ready: list[Job] = []
        running: dict[Future[None], Job] = {}
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                while sorter.is_active():
                    ready += [self.plan.jobs[fingerprint] for fingerprint in sorter.get_ready()]
                    for job in [job for job in ready if not self._is_to_run(job)]:
                        ready.remove(job)
                        sorter.done(job.fingerprint)
                    ready.sort(key=lambda job: order[job.fingerprint])
                    while ready and len(running) < self.at_once:
                        job = ready.pop(0)
                        running[pool.submit(self._execute, job)] = job
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        job = running.pop(future)
                        self._ended(job, future)
                        sorter.done(job.fingerprint)
            except BaseException:
                self.stop()
                raise
        return self.failed

    def stop(self) -> None:
        """End the processes that run."""
        with self._lock:
            for process in self._processes:
                _close_input(process)

    def _is_to_run(self, job: Job) -> bool:
        if job.cost() is not None:
            return False
        lacking = [self.plan.jobs[need] for need in job.needs if need in self.failed]
        if lacking:
            self.failed[job.fingerprint] = f"{job.title}: needs {lacking[0].title}, which has failed"
            self._left.remove(job)
            self.tell(self.failed[job.fingerprint])
        return not lacking

    def _execute(self, job: Job) -> None:
        _clear(job)
        job.write_settings()
        log = job.folder / LOG
        begun = time.monotonic()
        spent = self._measured(job, log)
        if code := spent.pop("code"):
            raise BundleError(f"{job.title}: {_reason(code, log)}; see {log}")
        for folder in job.folder.rglob("checkpoints"):  # a run that has ended is not gone on with
            shutil.rmtree(folder)
        done = {
            "fingerprint": job.fingerprint,
            "command": job.command,
            "seconds": time.monotonic() - begun,
            **spent,
            "ended": time.strftime("%F %T"),
        }
        save_text(json.dumps(done, indent=1) + "\n", job.folder / DONE)

    def _measured(self, job: Job, log: Path) -> dict[str, Any]:
        """Run a job; its exit code, and the processor time and memory of it and the processes that it has started."""
        place = job.folder / _SPENT
        with log.open("wb") as out, self._lock:
            process = subprocess.Popen(  # noqa: S603 - the bundle's own workflow
                [sys.executable, "-S", measured.__file__, str(place), sys.executable, *job.arguments],
                cwd=self.plan.places.root,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            self._processes.add(process)
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
            _close_input(process)
        if code or not place.is_file():
            return {"code": code or 1}
        spent: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        place.unlink()
        return spent

    def _ended(self, job: Job, future: Future[None]) -> None:
        """Say what has become of a job, and how long the rest may take."""
        error = future.exception()
        if error is not None and not isinstance(error, BundleError):
            raise error
        self._left.remove(job)
        number = f"[{len(self.plan.jobs) - len(self._left)}/{len(self.plan.jobs)}]"
        if error is not None:
            self.failed[job.fingerprint] = str(error)
            self.tell(f"{number} {error}")
            return
        cost = job.cost() or {}
        spent = f"{duration(cost['seconds'])}, {cost['peak_memory_bytes'] / 2**30:.1f} GB"
        rest = f"; about {duration(self._time_left())} left" if self._left else ""
        self.tell(f"{number} {job.title}: {spent}{rest}")

    def _time_left(self) -> float:
        """Seconds, if each run takes as long as those of its step have on average, or else as long as all have."""
        spent: dict[str, list[float]] = {}
        for job in self.plan.jobs.values():
            if (cost := job.cost()) is not None:
                spent.setdefault(job.step, []).append(cost["seconds"])
        everything = [seconds for of_step in spent.values() for seconds in of_step]
        means = [spent.get(job.step, everything) for job in self._left]
        return sum(sum(of_step) / len(of_step) for of_step in means) / self.at_once


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``5.2 min``, ``3 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _clear(job: Job) -> None:
    """Make the folder of a job empty, unless a run still writes there, as one may that was left alone."""
    for folder in (job.folder / "eval", job.folder / "models"):
        if folder.is_dir():
            lock = FolderLock(folder, job.title)
            lock.acquire()
            lock.release()
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """End what :mod:`cleft_bundle.experiments.measured` runs, if it still does."""
    if process.stdin is not None:
        process.stdin.close()


def _reason(code: int, log: Path) -> str:
    """Why a process has failed: the error that it has said, else the last thing, else how it ended."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}, {said[-1]}" if said else how
