"""Python processes whose imports are done: what a test starts runs in one of its own, and need not wait for PyTorch.

A server imports what all of them import, once for a worker of pytest, and forks each process before any thread runs
(:mod:`multiprocessing`'s ``forkserver``). Such a process has arguments, working directory, environment, output, exit
code and signals of its own, as one that is started from a shell has.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.multiprocessing

from tests.mlflow_databases import migrate_once

PRELOADED = ("monai.bundle", "monai.engines", "monai.handlers", "mlflow.store.db.utils", "fire", "sklearn.metrics")
PRELOADED += tuple(f"cleft_bundle.{room}" for room in ("reports", "handlers", "inference", "engines"))
#: Where the processes find the tables of MLflow, see :func:`tests.mlflow_databases.migrate_once`.
database = ""


def forked() -> multiprocessing.context.ForkServerContext:
    """The context whose processes have imported what all of them import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def spawn(worker: Callable[..., None], arguments: tuple[Any, ...], number: int) -> None:
    """As :func:`torch.multiprocessing.spawn`: ``worker(rank, *arguments)`` in each of several processes."""
    forked()
    torch.multiprocessing.start_processes(worker, arguments, number, start_method="forkserver")


def kill_at_work(work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(*arguments, started, True)`` in a process of its own, killed once it has set the event ``started``."""
    context = forked()
    started = context.Event()
    process = context.Process(target=work, args=(*arguments, started, True))
    process.start()
    assert started.wait(120)
    os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]  # it runs
    process.join()


def start(
    arguments: Sequence[Any],
    out: Path,
    err: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    session: bool = False,
) -> Any:
    """Start ``python ARGUMENTS``: a script, ``-m`` and a module or ``-c`` and code, with what they take.

    Args:
        arguments: as behind ``python`` in a shell.
        out: file that receives the standard output.
        err: file that receives the standard error; it may be the same one.
        cwd: the working directory.
        env: the environment; ``None``: that of this process.
        session: leads a session, and a group of processes, of its own.

    Returns:
        a :class:`multiprocessing.Process` that runs.
    """
    environ = dict(os.environ if env is None else env)
    place = str(cwd or Path.cwd()), environ, str(out), str(err), session, database
    process = forked().Process(target=_run, args=([*map(str, arguments)], *place))
    process.start()
    return process


def run(
    arguments: Sequence[Any],
    cwd: Path | None = None,
    check: bool = False,
    timeout: float = 600,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """As :func:`subprocess.run` does with captured text, of :func:`start`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(arguments, out, err, cwd, env)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout, _text(out), _text(err))
        done = subprocess.CompletedProcess(list(arguments), process.exitcode, _text(out), _text(err))
    if check:
        done.check_returncode()
    return done


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def _run(
    arguments: list[str], cwd: str, environ: Mapping[str, str], out: str, err: str, session: bool, tables: str
) -> None:
    """Be the process."""
    if session:
        os.setsid()
    migrate_once(tables)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream.fileno())
        os.close(file)
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, cwd)
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            sys.path.insert(0, cwd)
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c does
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # there is one
        sys.exit(1)
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()
