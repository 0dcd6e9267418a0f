"""The choice of where images are kept after their deterministic transforms."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose

from cleft_bundle.data.cache import RadiographCache, is_random
from cleft_bundle.data.image_counts import count_doubts, warn_of
from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import keeping_pictures
from cleft_bundle.data.store.dataset import RadiographStore
from cleft_bundle.data.store.free_memory import free_memory
from cleft_bundle.distributed import rank
from cleft_bundle.errors import BundleError, RadiographError, causes, require_one_of

logger = logging.getLogger(__name__)

#: Where images may be kept; ``files`` are those of :class:`cleft_bundle.data.RadiographCache`.
CACHES = ("auto", "memory", "store", "files", "none")
_SHARE = 0.5  # of the free memory
_BESIDE = 4096  # bytes that an image takes beside its pixels
_TRIED = 5  # images, where the first cannot be read
_GB = 1e9


def cached_dataset(
    data: Sequence[Item],
    transform: Any,
    cache_dir: str | None = None,
    cache_rate: float = 1.0,
    num_workers: int = 2,
    progress: bool | None = None,
    cache: str | None = None,
) -> Dataset:
    """Keep images after their deterministic transforms: in memory, in a store on the disk, in files, or not at all.

    Args:
        data: items.
        transform: a Compose; what comes before its first random transform is kept.
        cache_dir: folder of a store or of files.
        cache_rate: share of the items kept in memory; on the disk all are kept.
        num_workers: threads that fill the memory.
        progress: show a bar while something is filled; None: where somebody looks at a terminal, and for a large store.
        cache: of :data:`CACHES`. ``memory`` is MONAI's CacheDataset, ``store`` a
            :class:`cleft_bundle.data.RadiographStore`, ``files`` a :class:`cleft_bundle.data.RadiographCache`,
            ``none`` reads each image each time; ``auto`` is :func:`choose`, and says in one line what and why. None is
            ``files`` with a ``cache_dir``, else ``memory``.

    Blank images, and those of unknown orientation, are counted in the log: of those kept in files when all have come
    by once, of others at once. What is kept knows its picture, see :mod:`cleft_bundle.data.pictures`.

    Raises:
        BundleError: another ``cache``, one that needs a ``cache_dir`` without it, or as of
            :class:`cleft_bundle.data.RadiographStore`.
    """
    transform = keeping_pictures(transform)
    if cache is None:
        cache = "memory" if cache_dir is None else "files"
    require_one_of("cache", cache, CACHES)
    if cache == "auto":
        cache, why = choose(data, transform, cache_dir, cache_rate)
        if rank() == 0 and data and (cache_rate or cache_dir):
            logger.info("cache: %s, %s", cache, why)
    if cache in ("store", "files") and cache_dir is None:
        raise BundleError(f"cache: {cache} needs a folder: give one with --cache_dir")
    if cache == "store":
        return RadiographStore(data, transform, str(cache_dir), progress=progress)
    if cache == "files":
        return RadiographCache(data, transform, str(cache_dir))
    shown = sys.stderr.isatty() if progress is None else progress
    rate = cache_rate if cache == "memory" else 0.0
    dataset = CacheDataset(data, transform, cache_rate=rate, num_workers=num_workers, progress=shown)
    images = [item["image"] for item in dataset._cache if isinstance(item, dict) and "image" in item]
    warn_of(count_doubts(images), len(images))
    return dataset


def choose(
    data: Sequence[Item], transform: Compose, cache_dir: str | None = None, cache_rate: float = 1.0
) -> tuple[str, str]:
    """Place to keep images, by their number, the size of the first one and what is free.

    A ``cache_dir`` takes a store where the disk has room for it, or where it lies there already. Else the memory takes
    them where they need half of what is free or less, times the processes of this machine, each of which keeps its own.
    Nothing is written to a folder that nobody has named.

    Returns:
        one of :data:`CACHES`, and the reason.
    """
    image = _first_image(data, transform)
    if image is None:  # whatever is wrong with the images, reading them will tell
        return ("memory", "as no image could be read") if cache_dir is None else ("store", "as cache_dir says")
    wanted = f"{len(data)} images of {'x'.join(map(str, image.shape))}"
    if cache_dir is not None:
        size, free = 2 * image.numel() * len(data), _free_disk(Path(cache_dir).expanduser())
        if free > size:
            return (
                "store",
                f"as cache_dir says: {wanted} take up to {size / _GB:.1f} GB on a disk with {free / _GB:.1f} GB",
            )
        full = f"the disk of cache_dir has {free / _GB:.1f} GB, and a store may take {size / _GB:.1f} GB"
    else:
        full = "--cache_dir FOLDER keeps them in a store on a disk"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    size = int((image.nbytes + _BESIDE) * len(data) * cache_rate * processes)
    free = free_memory()
    needs = f"{wanted} take {size / _GB:.1f} GB of memory in {processes} processes, and {free / _GB:.1f} GB are free"
    if size <= _SHARE * free:
        return "memory", needs
    return "none", f"{needs}: each image is read from its file each time; {full}"


def _first_image(data: Sequence[Item], transform: Compose) -> torch.Tensor | None:
    """The first image that can be read, as it would be kept in memory."""
    flat = transform.flatten()
    first_random = flat.get_index_of_first(is_random)
    for item in data[:_TRIED]:
        try:
            made = flat({**item}, end=first_random)
        except Exception as error:
            if any(isinstance(cause, RadiographError) for cause in causes(error)):
                continue
            raise
        image = made.get("image")
        return image if isinstance(image, torch.Tensor) else None
    return None


def _free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
