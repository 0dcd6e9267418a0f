"""Progress bars: drawn often on a terminal, and seldom where a log file keeps every line."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
#: Of fewer files to open nobody waits long enough for a bar.
LONG = 500
_ON_A_TERMINAL, _IN_A_FILE = 0.2, 30.0  # seconds
_shown: weakref.WeakSet[Any] = weakref.WeakSet()


def refresh_interval() -> float:
    """Seconds between two updates of a bar."""
    return _ON_A_TERMINAL if sys.stderr.isatty() else _IN_A_FILE


def show(
    of: Iterable[T] | None = None, *, description: str | None, unit: str, hidden: bool = False, **options: Any
) -> Any:
    """Show a progress bar on stderr.

    Args:
        of: the elements, where the bar is to be iterated over; None: it is moved by hand.
        description: what is done with them.
        unit: one of them, in the singular.
        hidden: show no bar.
        options: further arguments of :class:`tqdm.tqdm`, such as ``total``.
    """
    shown: Any = tqdm(of, description, unit=unit, mininterval=refresh_interval(), disable=hidden, **options)
    _shown.add(shown)
    return shown


def bar(of: Iterable[T], description: str | None, unit: str, *, hidden: bool = False, **options: Any) -> Iterable[T]:
    """Iterate over things with a progress bar on stderr; arguments as of :func:`show`."""
    return show(of, description=description, unit=unit, hidden=hidden, **options)


def close_bars() -> None:
    """End the line of every bar that an error has left open, so that what is said next has one of its own."""
    for shown in list(_shown):
        shown.leave = True
        shown.close()
