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
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PRELOADED = ["monai.bundle", "monai.engines", "monai.handlers", "fire", "sklearn.metrics"]
_PRELOADED += [f"cleft_bundle.{room}" for room in ("evaluation", "handlers", "inference", "engines")]


def start(arguments: Sequence[str], out: Path, err: Path, cwd: Path | None = None) -> Any:
    """Start ``python ARGUMENTS``, a script or ``-m`` and a module, with what they take.

    Args:
        arguments: as behind ``python`` in a shell.
        out: file that receives the standard output.
        err: file that receives the standard error.
        cwd: the working directory.

    Returns:
        a :class:`multiprocessing.Process` that runs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    where = str(cwd or Path.cwd())
    process = context.Process(
        target=_run, args=([str(a) for a in arguments], where, dict(os.environ), str(out), str(err))
    )
    process.start()
    return process


def run(
    arguments: Sequence[str], cwd: Path | None = None, check: bool = False, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """As :func:`subprocess.run` does with captured text, of :func:`start`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(arguments, out, err, cwd)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout, out.read_text(), err.read_text())
        done = subprocess.CompletedProcess(list(arguments), process.exitcode, out.read_text(), err.read_text())
    if check:
        done.check_returncode()
    return done


def _run(arguments: list[str], cwd: str, environ: Mapping[str, str], out: str, err: str) -> None:
    """Be the process."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
        os.close(file)
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, cwd)
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
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
