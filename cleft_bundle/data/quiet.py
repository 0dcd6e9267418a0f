"""Silence while a library reads a file: what it warns of or logs may quote the file's header, that is a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Packages that read and write files for this one, by the names of their loggers
_READERS = ("PIL", "highdicom", "jpeg_ls", "libjpeg", "nibabel", "nvidia", "openjpeg", "pydicom", "pylibjpeg", "rle")

_here = threading.local()


class _NotWhileReading(logging.Filter):
    """Drops what is logged by a thread that is inside :func:`quiet`."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_here, "caught", None)


_FILTER = _NotWhileReading()


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep the warnings and log records of this thread to itself; other threads go on as they were.

    `warnings.catch_warnings` alone would not do: it belongs to the whole process, and two threads that leave it in
    another order than they entered it leave the process without warnings.

    Yields:
        the texts of the warnings so far, of this thread; not to be shown to anybody.
    """
    caught: list[str] = []
    stack = _here.__dict__.setdefault("caught", [])
    stack.append(caught)
    _HOOK.begin()
    try:
        yield caught
    finally:
        _HOOK.end()
        stack.pop()


class _Hook:
    """What the process does with warnings while any thread is inside :func:`quiet`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.loggers = 0
        self.before: Any = None
        self.show: Any = None

    def begin(self) -> None:
        """Enter: the first one in puts the hook in place."""
        with self.lock:
            self._filter_loggers()
            self.depth += 1
            if self.depth == 1:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
                warnings.simplefilter("always")
                self.show, warnings.showwarning = warnings.showwarning, self._catch

    def end(self) -> None:
        """Leave: the last one out removes it."""
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.before.__exit__(None, None, None)

    def _catch(self, message: Warning | str, *args: Any, **kwargs: Any) -> None:
        stack = getattr(_here, "caught", None)
        if stack:
            stack[-1].append(str(message))
        else:
            self.show(message, *args, **kwargs)

    def _filter_loggers(self) -> None:
        known = logging.root.manager.loggerDict
        if len(known) != self.loggers:
            self.loggers = len(known)
            for name in [name for name in known if name.partition(".")[0] in _READERS]:
                logging.getLogger(name).addFilter(_FILTER)  # adding it twice does nothing


_HOOK = _Hook()
