"""Progress bars: drawn often on a terminal, and seldom where a log file keeps every line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
#: Of fewer files to open nobody waits long enough for a bar.
LONG = 500
_ON_A_TERMINAL, _IN_A_FILE = 0.2, 30.0  # seconds


def refresh_interval() -> float:
    """Seconds between two updates of a bar."""
    return _ON_A_TERMINAL if sys.stderr.isatty() else _IN_A_FILE


def bar(of: Iterable[T], description: str | None, unit: str, *, hidden: bool = False, **options: Any) -> Iterable[T]:
    """Iterate over things with a progress bar on stderr.

    Args:
        of: the elements.
        description: what is done with them.
        unit: one of them, in the singular.
        hidden: show no bar.
        options: further arguments of :class:`tqdm.tqdm`, such as ``total``.
    """
    return tqdm(of, description, unit=unit, mininterval=refresh_interval(), disable=hidden, **options)
