"""Splits by patient, the checks before training, and the fingerprint of a datalist."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")

Item = dict[str, Any]


def make_splits(
    items: Sequence[Item],
    fractions: Sequence[float] | Mapping[str, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    classes: Sequence[str] | None = None,
    shared_patients: str = "error",
) -> dict[str, list[Item]]:
    """Divide items into training, validation and test: by patient, never by image.

    Where the items name their splits, those stand; a missing validation split is then taken from the training
    patients, in the proportion of the two fractions, and a missing test split stays empty. Where no item names one,
    all patients are divided. Patients are drawn within strata of equal labels, by a hash of seed and pseudonym, so
    that the outcome depends on neither the order of the rows nor the machine.

    Args:
        items: what a ``datalist`` function returns.
        fractions: share of the patients for train, validation and test, or a dictionary with these names.
        seed: another seed draws other patients.
        classes: names of the labels, for the messages of :func:`check_items`.
        shared_patients: what to do with patients whom the named splits put on several sides: "error", or "drop" to
            keep such a patient's images in the last of the splits (test before validation before train) and leave
            the others out, with their count in the log.

    Returns:
        Items under "train", "validation" and "test", each a copy with its ``split`` and sorted by name.

    Raises:
        BundleError: what :func:`check_items` raises; fractions that are none; some items with a split and some
            without; a patient on two sides; too few patients for training and validation.
    """
    check_items(items, classes)
    shares = _shares(fractions)
    named = [item for item in items if item["split"]]
    if named and len(named) < len(items):
        raise BundleError(
            f"{len(items) - len(named)} of {len(items)} images have no split: expected a split for all or for none"
        )
    if named:
        items = _part_patients(items, shared_patients)
        pool = [item for item in items if item["split"] == "train"]
        fixed = [item for item in items if item["split"] != "train"]
        if not pool:
            raise BundleError("no image has the split 'train'")
        has_validation = any(item["split"] == "validation" for item in fixed)
        drawn = {"train": shares["train"], "validation": 0.0 if has_validation else shares["validation"]}
    else:
        pool, fixed, drawn = list(items), [], shares
    side_of = _draw(pool, drawn, seed)
    divided: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in fixed:
        divided[item["split"]].append(dict(item))
    for item in pool:
        side = side_of[item["patient_id"]]
        divided[side].append({**item, "split": side})
    for split, members in divided.items():
        members.sort(key=lambda item: item["name"])
        logger.info("%s: %d images of %d patients", split, len(members), len({item["patient_id"] for item in members}))
    return divided


def select_split(splits: Mapping[str, list[Item]], name: str) -> list[Item]:
    """Take one split of :func:`make_splits`.

    Raises:
        BundleError: where there is no such split or it holds no image; names those that do.
    """
    if not splits.get(name):
        filled = ", ".join(key for key, items in splits.items() if items)
        raise BundleError(f"split {name!r} holds no image; splits with images are {filled}")
    return splits[name]


def _shares(fractions: Sequence[float] | Mapping[str, float]) -> dict[str, float]:
    """The fractions by name, checked."""
    shares = dict(fractions) if isinstance(fractions, Mapping) else dict(zip(SPLITS, fractions, strict=False))
    given = len(fractions)
    if not set(shares) <= set(SPLITS) or given > len(SPLITS):
        raise BundleError(f"fractions={fractions}: expected one number each for {', '.join(SPLITS)}")
    shares = {split: float(shares.get(split, 0.0)) for split in SPLITS}
    if min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6) or not shares["train"]:
        raise BundleError(f"fractions={fractions}: expected numbers from 0 to 1 that add up to 1, some for training")
    return shares


def _part_patients(items: Sequence[Item], shared_patients: str) -> Sequence[Item]:
    """The items without those that share a patient with a later split."""
    if shared_patients not in ("error", "drop"):
        raise BundleError(f"shared_patients='{shared_patients}': expected 'error' or 'drop'")
    sides: dict[str, set[str]] = defaultdict(set)
    for item in items:
        sides[item["patient_id"]].add(item["split"])
    shared = sorted(patient for patient, splits in sides.items() if len(splits) > 1)
    if shared and shared_patients == "error":
        raise BundleError(
            f"{len(shared)} patients are in more than one split, the first by pseudonym: {', '.join(shared[:5])}; "
            "mend the splits, leave them out so that patients are divided, or set shared_patients to 'drop'"
        )
    last = {patient: max(splits, key=SPLITS.index) for patient, splits in sides.items()}
    kept = [item for item in items if item["split"] == last[item["patient_id"]]]
    if shared:
        logger.warning("%d images of %d patients left out, as the patients are in a later split too",
                       len(items) - len(kept), len(shared))  # fmt: skip
    return kept


def _draw(items: Sequence[Item], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """From each patient to a split.

    Patients are put in order of their labels (a finding counts if any image has it) and then of their hash. Walking
    along, each goes to the split that lacks most of its share so far: equal labels lie side by side, so every split
    gets its share of each stratum to within one patient or so.
    """
    labels: dict[str, tuple[float, ...]] = {}
    for item in items:
        known = tuple(value == 1.0 for value in item["label"])
        before = labels.get(item["patient_id"], known)
        labels[item["patient_id"]] = tuple(max(pair) for pair in zip(before, known, strict=True))

    def position(patient: str) -> tuple[tuple[float, ...], str]:
        return labels[patient], hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    total = sum(shares.values())
    counts = dict.fromkeys(shares, 0)
    side_of = {}
    for number, patient in enumerate(sorted(labels, key=position), start=1):
        side = max(counts, key=lambda split: number * shares[split] / total - counts[split])
        counts[side] += 1
        side_of[patient] = side
    for split, share in shares.items():
        if share and not counts[split]:
            message = f"{len(labels)} patients are too few for a {split} share of {share:g}"
            if split != "test":
                raise BundleError(f"{message}: expected at least one patient in it")
            logger.warning("%s: it is empty", message)
    return side_of


def fingerprint(items: Iterable[Item]) -> str:
    """Identify a divided datalist.

    Args:
        items: items with ``name``, ``split`` and ``caption``.

    Returns:
        SHA-256 (64 hexadecimal digits) over the sorted names, splits and captions. Names are relative to the set's
        root, so it is the same on every machine and in every order of the rows.
    """
    lines = sorted(json.dumps([item["name"], item["split"], item["caption"]]) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_multi_label(items: Iterable[Item]) -> bool:
    """Whether any image carries more than one class, so that classes are scored one by one and not against each other.

    Args:
        items: items with ``label``.

    Returns:
        True if a label holds more than one 1.0.
    """
    return any(item["label"].count(1.0) > 1 for item in items)


def check_items(items: Sequence[Item], classes: Sequence[str] | None = None) -> None:
    """Stop before training on a datalist that cannot be trained on.

    Args:
        items: what a ``datalist`` function returns. Where all labels are empty lists, only images and captions are
            checked.
        classes: names of the labels, for the messages.

    Raises:
        BundleError: no item; images that do not exist (count and first five names); two items of one name; no caption;
            labels that are not as many as the classes; a class without any known label; fewer than two classes with a
            positive image; no class with both positive and negative images.
    """
    if not items:
        raise BundleError("the datalist is empty: no row of the table became an image with a caption")
    missing = [item["name"] for item in items if not os.path.isfile(item["image"])]
    if missing:
        raise BundleError(f"{len(missing)} of {len(items)} images do not exist, the first: {', '.join(missing[:5])}")
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
        _check_labels(np.array([item["label"] for item in items]), names)


def _check_labels(labels: np.ndarray, classes: Sequence[str]) -> None:
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
