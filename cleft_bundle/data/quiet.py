"""Silence while a library reads a file: what it warns of or logs may quote the file's header, that is a patient."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Packages that read and write files for this one, by the names of their loggers
_READERS = ("PIL", "highdicom", "jpeg_ls", "libjpeg", "nibabel", "nvidia", "openjpeg", "pydicom", "pylibjpeg", "rle")

_STDERR = 2

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


@contextmanager
def mute_decoder() -> Iterator[None]:
    """Keep what a decoder in C prints off the console: "Unsupported JPEG data precision 12", of an image that it reads.

    Such lines go to the process's standard error itself, so that is led elsewhere meanwhile, and what anybody else in
    the process printed there would be lost. It is done in the main thread alone, where nothing else runs but helpers of
    a library (daemon threads): in workers of a DataLoader, in inference without workers, in `inspect`. In other threads
    the lines are let pass; they quote numbers of the compressed image at most, as no decoder is given more of a file.
    """
    alone = all(thread is threading.current_thread() or thread.daemon for thread in threading.enumerate())
    if not alone or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed, as of a service
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDERR)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


def mute_other_readers() -> None:
    """Keep off the console what MONAI says of a reader that nobody has asked for, whenever a ``LoadImage`` is made."""
    if os.environ.get("MONAI_DICOM_READER", "").lower() != "nvimgcodec":
        warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: ")
        logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


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
