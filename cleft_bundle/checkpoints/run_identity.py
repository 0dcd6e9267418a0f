"""The identity of a run: it stands in every file it writes, so that it publishes and resumes only its own."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cleft_bundle import files
from cleft_bundle.checkpoints.trained_on import MADE_BY
from cleft_bundle.checkpoints.training_state import load_training_state
from cleft_bundle.distributed import first_does, from_first, rank
from cleft_bundle.errors import BundleError
from cleft_bundle.locks import FolderLock
from cleft_bundle.networks.classifiers.zero_shot import decode_settings

logger = logging.getLogger(__name__)

RESUME = (False, True, "auto")


class RunIdentity:
    """The identity of a run, made once and kept by its continuations, and the folders that only it may write to.

    Args:
        name: what people call the run; a continuation keeps the name of the run that it continues.
        folders: those that the run writes to.
        training_checkpoint: file of the training state, from which a run goes on. None: it can't be resumed.
        resume: go on from that file; ``auto``: go on where there is one, else start anew.

    Attributes:
        id: 32 hexadecimal digits, the same in all processes of the run.
        training_checkpoint: as given.
        resumed: the training state that the run goes on from, None for a new run.

    Raises:
        BundleError: where ``resume`` is true and there is nothing to resume, or the file is no training state.
    """

    def __init__(
        self,
        name: str,
        folders: Sequence[str | Path],
        training_checkpoint: str | Path | None = None,
        resume: bool | str = False,
    ) -> None:
        if resume not in RESUME:
            raise BundleError(f"resume: expected true, false or auto, got {resume!r}")
        self.training_checkpoint = training_checkpoint
        self.resumed: dict[str, Any] | None = None
        if training_checkpoint is not None and resume:
            path = Path(training_checkpoint)
            self.resumed = first_does(lambda: load_training_state(path) if resume is True or path.is_file() else None)
        kept = self.resumed["run"] if self.resumed else {"id": uuid.uuid4().hex, "name": name}
        self.id, self.name = from_first((str(kept["id"]), str(kept["name"])))
        self._locks = [FolderLock(folder, self.name) for folder in dict.fromkeys(map(str, folders))]

    def state_dict(self) -> dict[str, str]:
        """``id`` and ``name``, as they stand under ``run`` in the files of the run."""
        return {"id": self.id, "name": self.name}

    def lock(self, make_folders: bool = True) -> None:
        """Lock the folders of the run; of several processes the first one does.

        Args:
            make_folders: make the folders that are missing. Otherwise these are passed over, to be locked later.

        Raises:
            BundleError: where another run writes to one of them.
        """
        for lock in self._locks:
            if rank() == 0 and (make_folders or lock.folder.is_dir()):
                lock.acquire()

    @contextmanager
    def writing(self, last: bool = False) -> Iterator[None]:
        """Hold the locks of the folders, making them where they are missing; after an error they are given back.

        Args:
            last: give them back at the end too.

        Raises:
            BundleError: where another run writes to one of them.
        """
        self.lock()
        try:
            yield
        except BaseException:
            self.release()
            raise
        if last:
            self.release()

    def release(self) -> None:
        """Give the folders back."""
        for lock in self._locks:
            lock.release()

    def publish(self, content: Any, path: str | Path) -> None:
        """Write a file of the run; where it takes the place of another run's, the log says whose.

        Args:
            content: of the file, which names this run.
            path: the file.
        """
        self.say_replaced(path)
        files.save(content, path)

    def say_replaced(self, path: str | Path) -> None:
        """Say in the log whose file it is that is about to be replaced, where another run's is."""
        if Path(path).is_file():
            found = run_of_file(path)
            if found.get("id") != self.id:
                logger.warning("%s of %s is replaced", path, f"run {found['name']}" if found else "an unknown run")

    def check_own(self, state: Any, path: str | Path) -> None:
        """Refuse a file that another run wrote.

        Args:
            state: content of the file.
            path: of the file, for the message.

        Raises:
            BundleError: names both runs.
        """
        found = run_of(state)
        if found.get("id") != self.id:
            other = f"run {found['name']}" if found else "an unknown run"
            raise BundleError(f"{path} was written by {other}, not by this one, {self.name}: it is not published")


def run_of(state: Any) -> dict[str, str]:
    """The ``id`` and ``name`` of the run that wrote a checkpoint; empty where it doesn't say, as before 0.7.0."""
    if isinstance(state, Mapping) and "_extra_state" in state:  # a model.pt
        state = decode_settings(state["_extra_state"]).get("provenance")
    run = state.get("run") if isinstance(state, Mapping) else None
    return dict(run) if isinstance(run, Mapping) else {}


def run_of_file(path: str | Path) -> dict[str, str]:
    """:func:`run_of` a checkpoint on the disk.

    Raises:
        BundleError: where the file does not exist or is no checkpoint.
    """
    return run_of(files.load(path, MADE_BY))
