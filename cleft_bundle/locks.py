"""Locks on the folders that a run writes to, which the operating system takes back from a run that is killed."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from cleft_bundle.errors import BundleError
from cleft_bundle.files import save_text

logger = logging.getLogger(__name__)

LOCK = ".lock"
HOLDER = ".run.json"


class FolderLock:
    """The right to write to a folder, for one run at a time.

    It is a lock of the operating system on ``.lock`` in the folder, so a run that is killed leaves none behind. Beside
    it, ``.run.json`` says who holds it. Runs of one process follow each other, so a later one takes the lock over.

    Args:
        folder: the folder.
        holder: the run, as it is named to others who want the folder.
    """

    def __init__(self, folder: str | Path, holder: str) -> None:
        self.folder = Path(folder)
        self.holder = holder
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Take the lock, making the folder where it is missing.

        Raises:
            BundleError: where a run of another process holds it; the message names that run.
        """
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str((self.folder / LOCK).resolve()), is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BundleError(
                f"{self.folder} is in use by {self._other()}: wait for it, or choose another folder"
            ) from None
        except (OSError, NotImplementedError) as error:
            logger.warning("%s cannot be locked (%s): see that no other run writes there", self.folder, error)
            return
        self._lock = lock
        held = {
            "run": self.holder,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%F %T"),
        }
        save_text(json.dumps(held) + "\n", self.folder / HOLDER)

    def release(self) -> None:
        """Give the lock back; where it is not held, do nothing."""
        if self._lock is not None:
            (self.folder / HOLDER).unlink(missing_ok=True)
            self._lock.release(force=True)
            self._lock = None

    def _other(self) -> str:
        try:
            held = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            return f"run {held['run']} (process {held['process']} on {held['host']}, since {held['since']})"
        except (OSError, ValueError, KeyError, TypeError):  # it is about to write it
            return "another run"
