"""A folder of images for prediction, in which some files may turn out to be no images.

An unreadable file must neither stop the others nor be lost: it goes through as its path and the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset, list_data_collate

from cleft_bundle.errors import BundleError, RadiographError


def list_images(root: str, exclude: Sequence[str] = ("DICOMDIR",)) -> list[dict[str, str]]:
    """List every regular file below a folder, whatever its suffix; hidden files and folders are left out.

    Args:
        root: the folder.
        exclude: shell patterns of file names to leave out.

    Returns:
        sorted items: `image`, the absolute path, and `path`, the path below `root` with forward slashes.

    Raises:
        BundleError: if the folder does not exist or holds no such file.
    """
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise BundleError(f"{root}: a folder of images is expected, and there is none")
    items = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(place, name)
            hidden = name.startswith(".") or any(fnmatch(name, pattern) for pattern in exclude)
            if file.is_file() and not hidden:
                items.append({"image": str(file), "path": file.relative_to(folder).as_posix()})
    if not items:
        raise BundleError(f"{root}: the folder holds no file to read")
    return sorted(items, key=lambda item: item["path"])


class TolerantDataset(Dataset):
    """A dataset that gives the reason in place of an image that cannot be read.

    An item whose transform raises a RadiographError, directly or as the cause of another exception (MONAI wraps what
    happens inside a transform), becomes `{"path": ..., "error": reason}`. Every other exception goes through.
    """

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            reason = next((e for e in _causes(error) if isinstance(e, RadiographError)), None)
            if reason is None:
                raise
            item = self.data[index]
            image = str(item["image"])
            text = " ".join(str(reason).removeprefix(f"{image}: ").split())
            return {"path": item.get("path", image), "error": text}


def collate_readable(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate the readable items of a `TolerantDataset`, and list the others.

    Args:
        batch: items with `image` [C, H, W] and `path`, or with `path` and `error`.

    Returns:
        `image`: [B', C, H, W] of the B' readable items, in their order; [0, 1, 1, 1] if there is none. `path`: their
        paths, B' of them. `failures`: a list of `{"path", "error"}`.
    """
    readable = [{"image": item["image"], "path": item["path"]} for item in batch if "error" not in item]
    failures = [{"path": item["path"], "error": item["error"]} for item in batch if "error" in item]
    collated = list_data_collate(readable) if readable else {"image": torch.zeros(0, 1, 1, 1), "path": []}
    return {**collated, "failures": failures}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk an exception and what it came from, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
