"""A journal of what has been scored, on disk: an inference that was stopped goes on where it stood."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.files import file_stamp

logger = logging.getLogger(__name__)

_SYNC_SECONDS = 1.0  # what a power failure can cost; a killed process loses nothing that was written


@dataclass(frozen=True)
class Scored:
    """Outcome of an image: its class scores in their order, or why it could not be read; its typicality."""

    scores: tuple[float, ...] | None = None
    error: str | None = None
    typicality: float | None = None


class PredictionJournal:
    """Rows as they come, one JSON object a line, behind a first line that says how they were made.

    A row counts for an image as long as the file has the size and the time of modification that it had when it was
    scored. Of several rows of one image the last counts. A last line that a crash has torn is cut off.

    Memory holds the listing and one row per image.

    Args:
        path: the file, such as ``predictions.jsonl``.
        settings: all that scores depend on, as JSON values: model, classes, transforms.
        resume: keep the rows of a file that is there; its settings must be equal. False begins anew.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], resume: bool = True) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))  # as they will be read back
        self.resume = resume
        self._rows: dict[str, tuple[str, Scored]] = {}  # by the image's name: the stamp of its file, and what became
        self._listed: dict[str, tuple[str, str]] = {}  # by the listed path: the file, and the image's name
        self._sound = 0  # bytes of the file that are whole lines
        self._file: IO[str] | None = None
        self._synced = 0.0

    def pending(self, items: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """Take a listing, and return the items of it that have no row yet.

        Args:
            items: ``image`` and ``path`` of each, see :func:`cleft_bundle.data.list_images`.

        Raises:
            BundleError: where the file was made with other settings, or is no such file.
        """
        self._rows = {}
        self._sound = 0
        if self.resume:
            self._load()
        self._listed = {item["path"]: (item["image"], pseudonym(item["image"])) for item in items}
        left = [item for item in items if not self._is_done(item["path"])]
        if len(left) < len(items):
            kept = len(items) - len(left)
            logger.info(f"{kept} of {len(items)} images have predictions already; --resume false makes them anew")
        return left

    def file(self, path: str) -> str:
        """The file of a listed path."""
        return self._listed[path][0]

    def name(self, path: str) -> str:
        """Name of the outputs of an image, 16 hexadecimal digits: the pseudonym of its file's full path."""
        return self._listed[path][1]

    def open(self) -> None:
        """Begin to write: behind what is there, or anew."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._file.truncate(self._sound)
        if not self._sound:
            self._file.write(_line(self.settings))
        self._sync()

    def append(self, rows: Mapping[str, Scored]) -> None:
        """Write rows by their listed paths: safe from a kill on return, from a power failure within a second."""
        lines = []
        for path, scored in rows.items():
            file, name = self._listed[path]
            stamp = _stamp(file)
            self._rows[name] = stamp, scored
            outcome: dict[str, Any] = {"error": scored.error}
            if scored.error is None:
                outcome = {"scores": scored.scores}
                outcome |= {} if scored.typicality is None else {"typicality": scored.typicality}
            lines.append(_line({"image": path, "name": name, "stamp": stamp, **outcome}))
        if self._file is None:
            raise RuntimeError("append() before open()")
        self._file.write("".join(lines))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """End writing."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def rows(self) -> Iterator[tuple[str, str, Scored]]:
        """Path, name and outcome of each listed image that has a row, in the order of the listing."""
        for path, (_, name) in self._listed.items():
            if name in self._rows:
                yield path, name, self._rows[name][1]

    def _is_done(self, path: str) -> bool:
        file, name = self._listed[path]
        return name in self._rows and self._rows[name][0] == _stamp(file)

    def _load(self) -> None:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                row = _parse(line)
                if row is None:
                    break
                if number == 0:
                    self._check(row)
                else:
                    scores = row.get("scores")
                    known = None if scores is None else tuple(scores)
                    outcome = Scored(known, row.get("error"), row.get("typicality"))
                    self._rows[row["name"]] = row["stamp"], outcome
                self._sound += len(line)
        if torn := self.path.stat().st_size - self._sound:
            logger.warning(f"{self.path}: the last {torn} bytes are torn and are left out")

    def _check(self, settings: Mapping[str, Any]) -> None:
        keys = [*self.settings, *(key for key in settings if key not in self.settings)]
        if other := [key.replace("_", " ") for key in keys if settings.get(key) != self.settings.get(key)]:
            raise BundleError(
                f"{self.path} holds predictions made with other {', '.join(other)}: "
                "pass another --output_dir, or --resume false to replace them"
            )

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None for what a crash left of one."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if line.endswith(b"\n") and isinstance(content, dict) else None


def _stamp(file: str) -> str:
    """The stamp of an image; a file that comes to be there later is another one."""
    return file_stamp(file) or "missing"
