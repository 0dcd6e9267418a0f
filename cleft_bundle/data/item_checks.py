"""The checks of a datalist before anything is trained on it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)


def is_multi_label(items: Iterable[Item]) -> bool:
    """True where any image carries several classes, so that these are scored one by one, not against each other.

    Args:
        items: items with ``label``.

    Returns:
        True if a label holds more than one 1.0.

    Examples:
        >>> is_multi_label([{"label": [1.0, 0.0]}, {"label": [0.0, 1.0]}])
        False
        >>> is_multi_label([{"label": [1.0, 1.0]}])
        True
    """
    return any(item["label"].count(1.0) > 1 for item in items)


def task_of(items: Iterable[Item]) -> Task:
    """``multilabel`` where any image carries several classes, else ``multiclass``; see :func:`is_multi_label`.

    Args:
        items: items with ``label``.
    """
    return "multilabel" if is_multi_label(items) else "multiclass"


def present_items(items: Sequence[Item], absent_images: str = "skip") -> list[Item]:
    """The items whose image is there: a partial download trains on what it holds.

    Args:
        items: what a ``datalist`` function returns.
        absent_images: "skip" to leave out items without an image, with their count in the log, by split where the set
            names splits; or "error".

    Raises:
        BundleError: no image is there, or with "error" one is not; has the count and the first five names.
    """
    require_one_of("absent_images", absent_images, ("skip", "error"))
    there = [os.path.isfile(item["image"]) for item in items]
    missing = [item["name"] for item, found in zip(items, there, strict=True) if not found]
    if missing and (absent_images == "error" or len(missing) == len(items)):
        hint = "; --absent_images skip trains on those that do" if len(missing) < len(items) else ""
        raise BundleError(_absent(missing, len(items)) + hint)
    if missing:
        sides = Counter(str(item.get("split") or "without a split") for item in items)
        found_of = Counter(str(item.get("split") or "without a split") for item in compress(items, there))
        patients = {item["patient_id"] for item in compress(items, there)}
        logger.warning("a part of the set is here: %d of %d images, of %d of %d patients (%s); %d images are not there "
                       "and left out", len(items) - len(missing), len(items), len(patients),
                       len({item["patient_id"] for item in items}),
                       ", ".join(f"{side}: {found_of[side]} of {count}" for side, count in sides.items()),
                       len(missing))  # fmt: skip
    return list(compress(items, there))


def _absent(missing: Sequence[str], count: int) -> str:
    return f"{len(missing)} of {count} images do not exist, the first: {', '.join(missing[:5])}"


def check_items(items: Sequence[Item], classes: Sequence[str] | None = None) -> None:
    """Stop before training on a datalist that cannot be trained on.

    Args:
        items: what a ``datalist`` function returns. Where all labels are empty lists, only images and captions are
            checked.
        classes: names of the labels, for the messages.

    Raises:
        BundleError: images that do not exist (count and first five names), and what :func:`check_labels` raises.
    """
    if missing := [item["name"] for item in items if not os.path.isfile(item["image"])]:
        raise BundleError(_absent(missing, len(items)))
    check_labels(items, classes)


def check_labels(items: Sequence[Item], classes: Sequence[str] | None = None) -> None:
    """Stop before training on names, captions and labels that cannot be trained on; arguments as `check_items`.

    Raises:
        BundleError: no item; two items of one name; no caption; labels that are not as many as the classes, or other
            than 1, 0 and NaN (unknown); a class without any known label; fewer than two classes with a positive image;
            no class with both positive and negative images.
    """
    if not items:
        raise BundleError("the datalist is empty: no row of the table became an image with a caption")
    repeated = [name for name, count in Counter(item["name"] for item in items).items() if count > 1]
    if repeated:
        raise BundleError(f"{len(repeated)} images are listed more than once, the first: {', '.join(repeated[:5])}")
    if not any(item["caption"] for item in items):
        raise BundleError(f"none of {len(items)} images has a caption: expected at least one positive finding or text")
    lengths = {len(item["label"]) for item in items}
    count = len(classes) if classes is not None else max(lengths)
    if lengths != {count}:
        raise BundleError(f"expected labels of {count} classes for every image, found lengths {sorted(lengths)}")
    if count:
        names = classes or [f"number {number}" for number in range(1, count + 1)]
        labels = np.array([item["label"] for item in items], dtype=float)
        if (strange := ~(np.isin(labels, (0, 1)) | np.isnan(labels)).all(axis=1)).any():
            first = [item["name"] for item, odd in zip(items, strange, strict=True) if odd][:5]
            raise BundleError(
                f"{strange.sum()} of {len(items)} images have a label other than 1, 0 and unknown, the first: "
                f"{', '.join(first)}"
            )
        _check_known(labels, names)


def _check_known(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Check labels of shape [images, classes] (1, 0 or NaN)."""
    if np.isnan(labels).all():
        raise BundleError("no image has a known label: expected findings (a caption alone cannot be scored)")
    unknown = [name for name, column in zip(classes, labels.T, strict=True) if np.isnan(column).all()]
    if unknown:
        raise BundleError(f"class '{unknown[0]}' has no image with a known label (classes: {', '.join(classes)})")
    positives, negatives = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    if positives.sum() < 2 or not (positives & negatives).any():
        found = [name for name, positive in zip(classes, positives, strict=True) if positive]
        raise BundleError(
            f"expected images of two classes or more that differ, found one class only: {', '.join(found) or 'none'}"
            if len(found) < 2
            else f"every image has the same labels ({', '.join(found)}): nothing can be told apart"
        )
    for name, positive in zip(classes, positives, strict=True):
        if not positive:
            logger.warning("class '%s' has no positive image: it cannot be scored", name)
