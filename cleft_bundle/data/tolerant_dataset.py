"""Images for prediction, of which some may turn out to be no images.

An unreadable file must neither stop the others nor be lost: it goes through as its path and the reason.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import Dataset, MetaTensor, list_data_collate
from monai.transforms import Compose, LoadImaged

from cleft_bundle.errors import RadiographError, causes, one_line
from cleft_bundle.names import printable

#: The reason of an image that can be read and shows nothing: all its pixels but padding have one grey
BLANK = "blank"
_NICENESS = 5  # a quarter of a core while the network wants all of it


class TolerantDataset(Dataset):
    """A dataset that gives the reason in place of an image that cannot be read.

    An item whose transform raises a RadiographError, directly or as the cause of another exception (MONAI wraps what
    happens inside a transform), becomes `{"path": ..., "error": reason}`. So does one whose image is blank: a score of
    it would say nothing about a patient. Every other exception goes through.
    """

    def _transform(self, index: int) -> Any:
        try:
            return self._unless_blank(self.data[index])
        except Exception as error:
            reason = next((e for e in causes(error) if isinstance(e, RadiographError)), None)
            if reason is None:
                raise
            item = self.data[index]
            image = str(item["image"])
            text = one_line(str(reason).removeprefix(f"{image}: "), None)
            return _failure(item, text)

    def _unless_blank(self, item: Any) -> Any:
        """Transform an item; after its image is loaded, ask the reader's metadata, which later steps may drop."""
        if not isinstance(self.transform, Compose):
            done = self.transform(item) if self.transform is not None else item
            return _failure(item, BLANK) if is_blank(done) else done
        flat = self.transform.flatten()
        loads = [number + 1 for number, step in enumerate(flat.transforms) if isinstance(step, LoadImaged)]
        split = loads[-1] if loads else len(flat)
        loaded = flat(item, end=split)
        return _failure(item, BLANK) if is_blank(loaded) else flat(loaded, start=split)


def is_blank(item: Any) -> bool:
    """True where the reader found an item's `image` to have one grey only; False where its metadata do not say."""
    image = item.get("image") if isinstance(item, dict) else None
    return isinstance(image, MetaTensor) and bool(image.meta.get("blank", False))


def _failure(item: Any, reason: str) -> dict[str, Any]:
    return {"path": item.get("path", str(item["image"])), "error": printable(reason)}


def reading_workers(most: int = 8, alone: bool = False) -> int:
    """Number of processes that read while the network computes: one less than the cores that this process may use.

    Of several processes that ``torchrun`` has started on a machine each gets an equal share of the cores.

    Processes, not threads, because much of decoding and windowing should hold Python's lock, which the loop that feeds
    the network needs too; the two were not measured against each other.

    Args:
        most: upper bound.
        alone: the other processes of this machine wait meanwhile.

    Returns:
        0 where there is one core: reading then takes its turn with the network.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = 1 if alone else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(cores // processes - 1, most))


def begin_reading(worker: int) -> None:
    """Begin a reading process: it gives way to the network, and what it inherited by fork is never collected in it.

    All threads of the network wait for the one that shares its core with reading. The destructor of an ONNX Runtime
    session, for one, waits for threads that a forked process does not have.

    Args:
        worker: number of the process, as a DataLoader's ``worker_init_fn`` is given it.
    """
    gc.freeze()
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)


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
