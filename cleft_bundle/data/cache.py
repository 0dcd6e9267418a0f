"""Images after their deterministic transforms, kept in files: read and resized once, then loaded in a moment.

A cached image is found by a name that covers all that it depends on: the file, the transforms' parameters and the
versions of this package and of MONAI. Whatever changes, the name changes with it, so nothing stale is ever read;
a folder of caches may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import monai
import numpy as np
import torch
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Compose, RandomizableTrait, Transform

import cleft_bundle
from cleft_bundle.data.image_counts import Tally
from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.data.pseudonyms import keyed_digest
from cleft_bundle.data.radiograph_reader import METADATA
from cleft_bundle.errors import BundleError
from cleft_bundle.files import save

logger = logging.getLogger(__name__)

_NAME_BYTES = 24


class RadiographCache(PersistentDataset):
    """MONAI's PersistentDataset for radiographs: safe names, safe content, safe to be killed and to be shared.

    The deterministic transforms, those before the first random one, see `{key: path}` alone; captions, labels and all
    else of an item bypass the cache, so that they may change at will and never lie in it. The cached image is a tensor
    or a MetaTensor [C, H, W], its metadata the names of `radiograph_reader.METADATA` and what MONAI needs to invert the
    transforms. The name of a cache file is a hash keyed by the salt of `pseudonyms`: it does not tell the image's path.

    A file is written under a temporary name and then renamed: a killed process leaves no half-read cache behind, and of
    two processes that write the same image the later one wins with the same content. A file that cannot be read (a
    broken disk) is made anew.

    Args:
        data: items, each with the path of an image file at `key`.
        transform: a Compose, or transforms in a sequence.
        cache_dir: folder of the cache files; made where it does not exist. Sets, runs and processes may share it.
        by_content: identify an image by a hash of its bytes instead of path, size and time of change: reads every file
            in full each time, but recognises files that were copied or moved.
        key: where an item holds the path.
    """

    def __init__(
        self,
        data: Sequence[Item],
        transform: Any,
        cache_dir: str | Path,
        by_content: bool = False,
        key: str = "image",
    ) -> None:
        super().__init__(data, transform, cache_dir=Path(cache_dir).expanduser())
        self.by_content = by_content
        self.key = key
        self.transform: Compose = self.transform.flatten()
        first_random = self.transform.get_index_of_first(is_random)
        self.made_by = made_by(self.transform.transforms[:first_random], key)
        self.tally = Tally(len(data))

    def set_data(self, data: Sequence[dict[str, Any]]) -> None:
        """Change the items; what is cached stays, because a name never stands for anything else."""
        self.data = data
        self.tally = Tally(len(data))

    def _transform(self, index: int) -> Any:
        item = self._cachecheck(self.data[index])
        self.tally.note(index, item[self.key])
        return self._post_transform(item)

    def _cachecheck(self, item_transformed: dict[str, Any]) -> dict[str, Any]:
        path = str(item_transformed[self.key])
        file = self.cache_dir / f"{self._name(path)}.pt"
        content = _load(file)
        if content is None:
            made = self._pre_transform({self.key: path})
            content = {**packed(made[self.key]), **({PICTURE: made[PICTURE]} if PICTURE in made else {})}
            save(content, file)
        # also what was just made, so that the first epoch gets exactly what the second gets
        return {**item_transformed, self.key: unpacked(content, path)}

    def cached_picture(self, item: dict[str, Any]) -> str | None:
        """The digest of an item's picture, None where its image is not in the cache; the image stays on the disk."""
        file = self.cache_dir / f"{self._name(str(item[self.key]))}.pt"
        content = _load(file, mmap=True) if file.is_file() else None
        return None if content is None else content.get(PICTURE)

    def _name(self, path: str) -> str:
        """Name of the image's cache file: of fixed length, and without anything that can be read."""
        if self.by_content:
            with open(path, "rb") as image:
                identity = hashlib.file_digest(image, "blake2b").hexdigest()
        else:
            identity = file_identity(path)
        return keyed_digest(f"{self.made_by}\0{identity}", _NAME_BYTES)


def is_random(step: Any) -> bool:
    """True for a step whose result is not kept, as MONAI's PersistentDataset has it: a random one, or no transform."""
    return isinstance(step, RandomizableTrait) or not isinstance(step, Transform)


def made_by(steps: Sequence[Any], key: str) -> str:
    """Text of all that the result of transforms depends on beside the file: their settings, the packages' versions.

    Args:
        steps: the transforms.
        key: where their image is.

    Raises:
        BundleError: as of :func:`settings`.
    """
    return "\0".join([cleft_bundle.__version__, monai.__version__, key, settings(steps)])


def file_identity(path: str) -> str:
    """Text that changes when a file does: its absolute path, size and time of change."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return path  # the reader will say what is wrong with it
    return f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"


def settings(steps: Sequence[Any]) -> str:
    """Describe transforms by their classes and attributes, all the way down: equal settings give equal JSON.

    Functions are described by their code and what they close over.

    Raises:
        BundleError: if an attribute cannot be described, so that a change of it would not be noticed.
    """
    try:
        return json.dumps(steps, default=_describe, sort_keys=True)
    except (TypeError, ValueError) as e:
        names = ", ".join(type(step).__name__ for step in steps)
        raise BundleError(f"cache_dir: the settings of {names} cannot be told: {e}") from e


def _describe(value: Any) -> Any:
    """What stands in JSON for an object that JSON does not know."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    state: Any
    if isinstance(value, FunctionType):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        state = [value.__module__, value.__qualname__, value.__code__, value.__defaults__, closure]
    elif isinstance(value, CodeType):
        state = [value.co_code.hex(), value.co_names, value.co_consts]
    elif isinstance(value, MethodType):
        state = [value.__func__, value.__self__]
    elif isinstance(value, partial):
        state = [value.func, value.args, value.keywords]
    elif isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        array = np.asarray(value)
        state = [str(array.dtype), array.shape, hashlib.blake2b(array.tobytes()).hexdigest()]
    elif isinstance(value, (set, frozenset)):
        state = sorted(map(str, value))
    elif hasattr(value, "__dict__"):
        # MONAI's switch of tracing comes to be with the first use, and says nothing about the result
        state = {name: part for name, part in vars(value).items() if name != "_tracing"}
    else:  # of a compiled class: a dtype, a device, ...; an address in memory says nothing
        state = str(value).partition(" at 0x")[0]
    return [type(value), state]


def packed(image: torch.Tensor) -> dict[str, Any]:
    """The parts of an image that are kept: values, safe metadata, and how to invert what was done to it."""
    if not isinstance(image, MetaTensor):
        return {"image": image.contiguous()}
    meta = {str(name): value for name, value in image.meta.items() if name in METADATA}
    arrays = {name: torch.as_tensor(value) for name, value in meta.items() if isinstance(value, np.ndarray)}
    return {
        "image": image.as_tensor().contiguous(),
        "meta": {name: _plain(value) for name, value in meta.items() if name not in arrays},
        "arrays": arrays,
        "applied_operations": _plain(image.applied_operations),
    }


def unpacked(content: dict[str, Any], path: str) -> torch.Tensor:
    """Make the image again from what `packed` kept and from its path."""
    if "meta" not in content:
        return content["image"]
    arrays = {name: value.numpy() for name, value in content["arrays"].items()}
    meta = {**content["meta"], **arrays, "filename_or_obj": path}
    return MetaTensor(content["image"], meta=meta, applied_operations=content["applied_operations"])


def _plain(value: Any) -> Any:
    """Turn what `torch.load(weights_only=True)` refuses (NumPy's types, MONAI's names) into Python's and torch's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _load(file: Path, mmap: bool = False) -> dict[str, Any] | None:
    """Load a cache file; None where there is none, or none that can be read."""
    try:
        return torch.load(file, weights_only=True, mmap=mmap)
    except Exception:  # an unpickler raises anything at all over a broken file
        return None
