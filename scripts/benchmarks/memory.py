"""Resident memory of this process, from /proc (Linux)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any


def megabytes(name: str) -> int:
    """A line of /proc/self/status, e.g. VmRSS (now), VmHWM (the highest so far) or VmSize, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Count the highest resident memory from here."""
    Path("/proc/self/clear_refs").write_text("5")


def give_back_memory() -> None:
    """Let the system have what earlier work has freed, so that it counts again where it is taken."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def peak_during(work: Callable[[], Any]) -> int:
    """Megabytes by which resident memory rises at most while `work` runs; slows down what it measures."""
    give_back_memory()
    forget_peak()
    before = megabytes("VmRSS")
    work()
    return megabytes("VmHWM") - before
