"""Images of one shape in one array on the disk, with a record of each: what is appended stays, whatever ends a process.

A shelf is three files that only grow: the pixels, the metadata as JSON, and a record of fixed size for each image,
written once the other two are on the disk. What a killed process or a power failure leaves behind the last whole record
is cut off by whoever appends next. The array is opened as NumPy's memmap: it is the smallest kept tool that does it.
litdata and webdataset read in the order of their shards, and zarr decompresses a chunk in each process, where a random
order and one copy for all processes are wanted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

#: Bytes of the name under which an image is found.
NAME_BYTES = 24
RECORD = np.dtype(
    [
        *(("name", f"V{NAME_BYTES}"), ("picture", "S16"), ("pictured", "?"), ("doubts", "u1")),
        *(("low", "<f4"), ("high", "<f4"), ("meta_start", "<u8"), ("meta_length", "<u4")),
    ]
)
_PARTS = ("pixels", "meta", "index")


class Kind(NamedTuple):
    """Type and shape that the images of one shelf have in common.

    Attributes:
        bits: of a pixel, 8 or 16.
        shape: [C, H, W].
    """

    bits: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of a pixel."""
        return np.dtype("<u1" if self.bits == 8 else "<u2")

    @property
    def bytes(self) -> int:
        """Of the pixels of an image."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def title(self) -> str:
        """Name of its files, such as ``8bit-1x224x224``."""
        return f"{self.bits}bit-{'x'.join(map(str, self.shape))}"

    @classmethod
    def of(cls, title: str) -> Kind:
        """The kind of a title."""
        bits, shape = title.split("bit-")
        return cls(int(bits), tuple(map(int, shape.split("x"))))


class Entry(NamedTuple):
    """An image on its way into a shelf.

    Attributes:
        name: of :data:`NAME_BYTES` bytes.
        pixels: of the kind's type and shape.
        low: the value that 0 stands for.
        high: the value that the largest number stands for.
        meta: JSON of what else is kept.
        picture: digest of the picture; None where it is not known.
        doubts: bits of what makes the image doubtful.
    """

    name: bytes
    pixels: np.ndarray
    low: float
    high: float
    meta: bytes
    picture: str | None
    doubts: int


class Shelf:
    """The images of one kind.

    Args:
        folder: of the store.
        kind: of the images.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kind = kind
        self.paths = {part: folder / f"{kind.title}.{part}" for part in _PARTS}
        self.records = self._whole_records()
        self._open: tuple[np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open arrays, which would travel as copies."""
        return self.__dict__ | {"_open": None}

    def names(self) -> list[bytes]:
        """Names of the images, in their order."""
        joined = np.ascontiguousarray(self.records["name"]).tobytes()
        return [joined[start : start + NAME_BYTES] for start in range(0, len(joined), NAME_BYTES)]

    def image(self, place: int) -> tuple[torch.Tensor, bytes]:
        """Values of an image, float32 [C, H, W], and its metadata as JSON."""
        pixels, meta = self._arrays()
        record = self.records[place]
        start = int(record["meta_start"])
        text = meta[start : start + int(record["meta_length"])].tobytes()
        return restored(pixels[place], float(record["low"]), float(record["high"])), text

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Append images; one process does at a time.

        Raises:
            OSError: where the disk is full or cannot be written to.
        """
        count = len(self.records)
        ends = {"pixels": count * self.kind.bytes, "index": count * RECORD.itemsize, "meta": self._meta_end()}
        with ExitStack() as stack:
            files = {}
            for part, path in self.paths.items():
                files[part] = stack.enter_context(open(path, "r+b" if path.exists() else "w+b", buffering=0))
                files[part].truncate(ends[part])
                files[part].seek(ends[part])
            yield Appender(files, ends["meta"])
        self.records, self._open = self._whole_records(), None

    def _whole_records(self) -> np.ndarray:
        """The records whose pixels and metadata are there."""
        sizes = {part: path.stat().st_size if path.is_file() else 0 for part, path in self.paths.items()}
        count = min(sizes["index"] // RECORD.itemsize, sizes["pixels"] // self.kind.bytes)
        if not count:
            return np.zeros(0, RECORD)
        records = np.fromfile(self.paths["index"], RECORD, count)
        ends = records["meta_start"] + records["meta_length"]
        torn = np.flatnonzero(ends > sizes["meta"])
        return records[: torn[0]] if len(torn) else records

    def _meta_end(self) -> int:
        return int((self.records["meta_start"] + self.records["meta_length"]).max(initial=0))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, C, H, W] and metadata, mapped into memory when they are first asked for in a process."""
        if self._open is None:
            shape = (len(self.records), *self.kind.shape)
            pixels = np.memmap(self.paths["pixels"], self.kind.dtype, "r", shape=shape)
            self._open = pixels, np.memmap(self.paths["meta"], np.uint8, "r")
        return self._open


class Appender:
    """Open files of a shelf.

    Args:
        files: by part.
        end: where the metadata go on.
    """

    def __init__(self, files: dict[str, Any], end: int) -> None:
        self._files, self._end = files, end
        self._known: dict[bytes, int] = {}
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, entries: Sequence[Entry]) -> None:
        """Write images, which are found once :meth:`settle` has been called."""
        new: list[bytes] = []
        for entry in entries:
            if entry.meta not in self._known:
                self._known[entry.meta] = self._end
                self._end += len(entry.meta)
                new.append(entry.meta)
            start = self._known[entry.meta]
            pictured = entry.picture is not None
            self._waiting.append(
                (entry.name, entry.picture or "", pictured, entry.doubts, entry.low, entry.high, start, len(entry.meta))
            )
        self._write("pixels", b"".join(entry.pixels.tobytes() for entry in entries))
        self._write("meta", b"".join(new))

    def settle(self) -> None:
        """Bring what was added to the disk, then its records."""
        for part in ("pixels", "meta"):
            os.fsync(self._files[part].fileno())
        self._write("index", np.array(self._waiting, RECORD).tobytes())
        self._waiting = []

    def _write(self, part: str, content: bytes) -> None:
        rest = memoryview(content)
        while rest:  # a disk that fills up takes a part first
            rest = rest[self._files[part].write(rest) :]


def quantised(image: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    """Whole numbers of 8 or 16 bits for the values of an image, each at most half a step from its own.

    Args:
        image: floats. Within 0 to 1, as the reader gives them, these are the ends of the numbers' range, so that an
            image of 8 bits comes back as it was; else the image's own smallest and largest value are.
        bits: 8 or 16.

    Returns:
        the numbers, and the values that the smallest and the largest number stand for.
    """
    low, high = min(0.0, float(image.min(initial=0))), max(1.0, float(image.max(initial=1)))
    top = 2**bits - 1
    low, high = float(np.float32(low)), float(np.float32(high))
    numbers = np.rint((image.astype(np.float64) - low) * (top / (high - low))).clip(0, top)
    return numbers.astype("<u1" if bits == 8 else "<u2"), low, high


def restored(numbers: np.ndarray, low: float, high: float) -> torch.Tensor:
    """The values, float32, of numbers of :func:`quantised`."""
    top = np.iinfo(numbers.dtype).max
    values = np.divide(numbers, np.float32(top), dtype=np.float32)  # as a reader does it: k / 255 to the last bit
    if (low, high) != (0.0, 1.0):
        values = values * np.float32(high - low) + np.float32(low)
    return torch.from_numpy(values)


def to_json(value: Any) -> bytes:
    """JSON of Python's values, tuples and tensors, from which :func:`from_json` makes them again."""
    return json.dumps(_tagged(value), separators=(",", ":")).encode()


def from_json(text: bytes) -> Any:
    """The value that :func:`to_json` was given."""
    return json.loads(text, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"__tensor__": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple):
        return {"__tuple__": [_tagged(part) for part in value]}
    if isinstance(value, list):
        return [_tagged(part) for part in value]
    return {str(key): _tagged(part) for key, part in value.items()} if isinstance(value, dict) else value


def _untagged(found: dict[str, Any]) -> Any:
    if "__tensor__" in found:
        return torch.tensor(found["__tensor__"], dtype=getattr(torch, found["dtype"]))
    return tuple(found["__tuple__"]) if "__tuple__" in found else found
