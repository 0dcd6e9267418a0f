"""Counts over a set of what makes single images doubtful: blank ones, and those whose orientation is not known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from monai.data import MetaTensor

from cleft_bundle.data.images.turns import UNKNOWN

logger = logging.getLogger(__name__)

#: What is counted, in the words of the log.
DOUBTS = {
    "blank": "are blank: all their pixels have one value",
    "unknown orientation": "are left as they lie: no rule is known for the orientation that their header names",
}
_SEEN = 1


def doubts_of(image: Any) -> list[str]:
    """Those of :data:`DOUBTS` that hold of an image.

    Args:
        image: after its deterministic transforms; its metadata count where it has them.
    """
    if not isinstance(image, torch.Tensor):
        return []
    meta = image.meta if isinstance(image, MetaTensor) else {}
    turned = str(meta.get("orientation_applied", "")).partition(",")[0]
    blank = bool(meta.get("blank", False)) or bool(image.numel() and image.min() == image.max())
    return [name for name, holds in zip(DOUBTS, (blank, turned == UNKNOWN), strict=True) if holds]


def warn_of(counts: Counter[str], images: int, what: str = "cached images") -> None:
    """Warn of each doubt with its number of images; of nothing where there is none."""
    for name, said in DOUBTS.items():
        if counts[name]:
            logger.warning("%d of %d %s %s", counts[name], images, what, said)


def count_doubts(images: Iterable[Any]) -> Counter[str]:
    """Number of images that each of :data:`DOUBTS` holds of."""
    return Counter(name for image in images for name in doubts_of(image))


class Tally:
    """The doubts about the images of a set, as they come by one by one, in one process or in several.

    The notes lie in memory that a DataLoader's workers share, forked or spawned. One warning with the totals is given
    once every image has come by, or the first one comes by again, as in the second epoch of a process that sees a
    share of the set.

    Args:
        size: number of images.
    """

    def __init__(self, size: int) -> None:
        self.notes = torch.zeros(size, dtype=torch.uint8).share_memory_()
        self.told = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def note(self, index: int, image: Any) -> None:
        """Note the doubts about an image by its place in the set."""
        if self.told[0]:
            return
        again = bool(self.notes[index])
        found = doubts_of(image)
        self.notes[index] = _SEEN + sum(2 << place for place, name in enumerate(DOUBTS) if name in found)
        if again or bool(self.notes.all()):
            self.told[0] = 1
            warn_of(self.counts(), int((self.notes > 0).sum()))

    def counts(self) -> Counter[str]:
        """Number of the images seen so far that each of :data:`DOUBTS` holds of."""
        return Counter({name: int((self.notes & (2 << place) > 0).sum()) for place, name in enumerate(DOUBTS)})
