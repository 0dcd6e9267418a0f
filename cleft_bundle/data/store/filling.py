"""Images on their way from their files into the shelves of a store, read by several processes and written by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset

from cleft_bundle.data.cache import packed
from cleft_bundle.data.image_counts import DOUBTS, doubts_of
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.data.store.shelf import Appender, Entry, Kind, Shelf, quantised, to_json
from cleft_bundle.errors import BundleError, RadiographError, causes, one_line
from cleft_bundle.locks import FolderLock
from cleft_bundle.progress import LONG, show

logger = logging.getLogger(__name__)

_BATCH = 16  # images that a process reads before it hands them on
_SETTLED = 5.0  # seconds of work that a kill may cost
_KINDS = 16  # shapes beyond which nothing is in one array
_PNG, _JPEG, _DEPTH = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", 24
_EIGHT = 8


class Unreadable(str):
    """Reason why an image cannot be read: its path and the reason."""

    __slots__ = ()


class Reading(Dataset):
    """The images to be filled in, each as an entry of its kind or as the reason why it cannot be read.

    Args:
        names: of the images in the store.
        paths: of their files.
        transform: what the store keeps the results of.
        key: under which the transforms want the path.
    """

    def __init__(self, names: Sequence[bytes], paths: Sequence[str], transform: Compose, key: str) -> None:
        self.names, self.paths, self.transform, self.key = names, paths, transform, key

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Kind, Entry] | Unreadable:
        """Read one image."""
        path = self.paths[index]
        try:
            made = self.transform({self.key: path})
        except Exception as error:
            reason = next((e for e in causes(error) if isinstance(e, RadiographError)), None)
            if reason is None:
                raise
            return Unreadable(f"{path}: {one_line(str(reason).removeprefix(f'{path}: '), None)}")
        content = packed(torch.as_tensor(made[self.key]))
        image, bits = content.pop("image").numpy(), bits_of(path)
        if not np.isfinite(image).all():
            raise BundleError(f"{path}: its values are not all finite, and cannot be kept in a store")
        pixels, low, high = quantised(image, bits)
        doubts = doubts_of(made[self.key])
        number = sum(1 << place for place, name in enumerate(DOUBTS) if name in doubts)
        meta = to_json(content)
        entry = Entry(self.names[index], pixels, low, high, meta, made.get(PICTURE), number)
        return Kind(bits, tuple(image.shape)), entry


def bits_of(path: str) -> int:
    """Bits in which the values of a file's image are kept: 8 where the file has no more, as JPEG and most PNG, else 16.

    Args:
        path: of an image that has been read.
    """
    with open(path, "rb") as file:
        start = file.read(_DEPTH + 1)
    if start.startswith(_PNG):
        return _EIGHT if start[_DEPTH] <= _EIGHT else 16
    return _EIGHT if start.startswith(_JPEG) else 16


def fill(folder: Path, shelves: dict[Kind, Shelf], reading: Reading, num_workers: int, hidden: bool | None) -> None:
    """Read images and append them to the shelves of their kinds; what is filled stays, whatever comes then.

    Args:
        folder: of the store, whose lock this process holds.
        shelves: by kind; new ones are added.
        reading: the images.
        num_workers: processes that read; 0 reads in this one.
        hidden: show no progress; None: where there are few images.

    Raises:
        BundleError: images cannot be read (how many, and the first five), which is told once all others are kept; they
            have too many shapes; the folder cannot be written to, or the disk is full.
    """
    failures: list[str] = []
    loader = DataLoader(
        reading,
        batch_size=_BATCH,
        num_workers=num_workers,
        collate_fn=list,
        generator=torch.Generator().manual_seed(0),  # the run's own random numbers stay as they are
    )
    hidden = len(reading) < LONG if hidden is None else hidden
    bar = show(total=len(reading), description="filling the store", unit="image", hidden=hidden)
    with _writing(folder, len(reading)), bar, ExitStack() as stack:
        open_shelves: dict[Kind, Appender] = {}
        settled = time.monotonic()
        try:
            for batch in loader:
                for kind, entries in _by_kind(batch, failures).items():
                    if kind not in open_shelves:
                        shelves.setdefault(kind, Shelf(folder, kind))
                        _check_kinds(shelves)
                        open_shelves[kind] = stack.enter_context(shelves[kind].appending())
                    open_shelves[kind].add(entries)
                bar.update(len(batch))
                if time.monotonic() - settled > _SETTLED:
                    _settle(open_shelves)
                    settled = time.monotonic()
        except BaseException:
            with suppress(OSError):
                _settle(open_shelves)
            raise
        _settle(open_shelves)
    if failures:
        first = "; ".join(failures[:5])
        raise BundleError(f"{len(failures)} of {len(reading)} images cannot be read, the first: {first}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The right to fill a store, for one process of the machine; the others wait, and find it filled."""
    lock, told = FolderLock(folder, "that fills this store"), False
    while True:
        try:
            lock.acquire()
            break
        except BundleError as busy:
            if not told:
                logger.info("waiting until the store is filled: %s", str(busy).partition(": ")[0])
            told = True
            time.sleep(0.2)
        except OSError as error:
            raise BundleError(f"cache_dir: {folder} cannot be written to: {one_line(error.strerror)}") from error
    try:
        yield
    finally:
        lock.release()


def _by_kind(batch: Sequence[tuple[Kind, Entry] | Unreadable], failures: list[str]) -> Mapping[Kind, list[Entry]]:
    found: dict[Kind, list[Entry]] = {}
    for read in batch:
        if isinstance(read, Unreadable):
            failures.append(read)
        else:
            found.setdefault(read[0], []).append(read[1])
    return found


def _settle(shelves: Mapping[Kind, Appender]) -> None:
    for shelf in shelves.values():
        shelf.settle()


def _check_kinds(shelves: Mapping[Kind, Shelf]) -> None:
    if len(shelves) > _KINDS:
        shapes = sorted("x".join(map(str, kind.shape)) for kind in shelves)
        raise BundleError(
            f"cache: a store wants images of one shape, and these have more than {_KINDS} ({', '.join(shapes[:3])}, "
            "...): bring them to one, by SpatialPadd for example, or set cache to files, memory or none"
        )


@contextmanager
def _writing(folder: Path, images: int) -> Iterator[None]:
    """Tell in one line what the disk says."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise BundleError(
            f"cache_dir: {folder} cannot be filled with {images} images: {one_line(error.strerror)}; those that it has "
            "are kept"
        ) from error
