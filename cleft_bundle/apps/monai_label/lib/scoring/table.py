"""A classifier's scores of the images of a datastore, kept in a file beside them."""

from __future__ import annotations

import logging
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.files import file_stamp, save_arrays

from ..model import Loaded, ServedModel

logger = logging.getLogger(__name__)

FILE_NAME = "cleft_scores.npz"
#: Name of the scoring method that fills the table.
METHOD = "cleft_scores"
_FORMAT = 1
_BATCH = 32
_SAVE_SECONDS = 30.0  # what a killed scoring can lose


@dataclass(frozen=True)
class Entry:
    """Outcome of one image.

    Args:
        stamp: size and time of modification of its file when it was scored.
        probabilities: [K], NaN where it could not be read.
        embedding: [D], likewise.
        error: why it could not be read, "" where it could.
    """

    stamp: str
    probabilities: np.ndarray
    embedding: np.ndarray
    error: str


class ScoreTable:
    """Scores and embeddings of the images of a datastore by one classifier, computed once.

    An image has its entry as long as its file stays as it is and the classifier is the one that is served: a table of
    another classifier counts as empty. Images are known by pseudonyms of their ids, because those of a PACS are its
    UIDs. The file is replaced as a whole, and one that cannot be read is made anew.

    Args:
        path: the file, such as ``cleft_scores.npz`` beside the images.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._read: tuple[tuple[int, int] | None, str, dict[str, Entry]] = (None, "", {})

    def entries(self, digest: str, images: Mapping[str, str]) -> dict[str, Entry]:
        """The entries that are there and valid.

        Args:
            digest: SHA-256 of the classifier.
            images: from the id of each image to its file, which is asked for only where there is an entry.

        Returns:
            from ids to entries, in the order of ``images``; those without a valid one are left out.
        """
        made_by, stored = self._load()
        found = {}
        for image in images if made_by == digest else ():
            entry = stored.get(pseudonym(image))
            if entry is not None and entry.stamp == file_stamp(images[image]):
                found[image] = entry
        return found

    def complete(
        self, model: ServedModel, images: Mapping[str, str], progress: Callable[[int, int], None] | None = None
    ) -> dict[str, int]:
        """Score the images that have no valid entry, and forget images that are gone.

        Args:
            model: what is served; the version that it has at the beginning scores all.
            images: from the id of each image to its file.
            progress: told after every batch how many are scored, and of how many that have to be.

        Returns:
            ``images``, how many there are; ``scored``, how many of them now; ``unreadable``, how many cannot be read.
        """
        loaded = model.current()
        entries = self.entries(loaded.digest, images)
        missing = [image for image in images if image not in entries]
        saved = time.monotonic()
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            entries |= _score(loaded, {image: images[image] for image in batch})
            if progress:
                progress(start + len(batch), len(missing))
            if time.monotonic() - saved > _SAVE_SECONDS:
                self._save(loaded.digest, entries)
                saved = time.monotonic()
        if missing or not self.path.is_file():
            self._save(loaded.digest, entries)
        unreadable = sum(bool(entry.error) for entry in entries.values())
        return {"images": len(images), "scored": len(missing), "unreadable": unreadable}

    def _save(self, digest: str, entries: Mapping[str, Entry]) -> None:
        rows = list(entries.values())
        arrays = {
            "format": np.array(_FORMAT),
            "digest": np.array(digest),
            "image": np.array([pseudonym(image) for image in entries], dtype=np.str_),
            "stamp": np.array([row.stamp for row in rows], dtype=np.str_),
            "error": np.array([row.error for row in rows], dtype=np.str_),
            "probabilities": np.array([row.probabilities for row in rows], dtype=np.float32),
            "embedding": np.array([row.embedding for row in rows], dtype=np.float32),
        }
        save_arrays(arrays, self.path)

    def _load(self) -> tuple[str, dict[str, Entry]]:
        """Digest and entries of the file, by pseudonym; it is read again where it has been replaced."""
        try:
            found = os.stat(self.path)
            state = found.st_mtime_ns, found.st_ino
        except OSError:
            return "", {}
        if self._read[0] != state:
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    content = {key: file[key] for key in file.files}
                digest, entries = _unpack(content)
            except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
                logger.warning("%s cannot be read and is made anew: %s", self.path, type(error).__name__)
                digest, entries = "", {}
            self._read = state, digest, entries
        return self._read[1:]


def _score(loaded: Loaded, images: Mapping[str, str]) -> dict[str, Entry]:
    stamps = {image: file_stamp(file) for image, file in images.items()}  # before reading: a later change counts
    files: Sequence[str] = list(dict.fromkeys(images.values()))
    scores = loaded.score(files)
    place = {file: number for number, file in enumerate(files)}
    return {
        image: Entry(
            stamps[image],
            scores.probabilities[place[file]],
            scores.embeddings[place[file]],
            scores.failures.get(file, ""),
        )
        for image, file in images.items()
    }


def _unpack(content: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Entry]]:
    if int(content["format"]) != _FORMAT:
        raise ValueError
    columns = (content[key] for key in ("image", "stamp", "probabilities", "embedding", "error"))
    entries = {
        str(image): Entry(str(stamp), probabilities, embedding, str(error))
        for image, stamp, probabilities, embedding, error in zip(*columns, strict=True)
    }
    return str(content["digest"]), entries
