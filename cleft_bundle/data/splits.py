"""Splits by patient."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cleft_bundle.data.item import Item, changed
from cleft_bundle.data.item_checks import check_labels, present_items
from cleft_bundle.data.pictures import part_pictures
from cleft_bundle.data.subsets import balanced_set, digest, patient_fraction, patient_labels
from cleft_bundle.data.usable_labels import label_summary
from cleft_bundle.errors import BundleError
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def make_splits(
    items: Sequence[Item],
    fractions: Sequence[float] | Mapping[str, float] = (0.8, 0.1, 0.1),
    seed: int | tuple[int, int] = 0,
    classes: Sequence[str] | None = None,
    shared_patients: str = "error",
    balanced_test: int | Mapping[str, int] | None = None,
    train_fraction: float = 1.0,
    test_fraction: float = 0.0,
    task: Task | None = None,
    shared_pictures: str = "warn",
) -> dict[str, list[Item]]:
    """Divide items into training, validation and test: by patient, never by image.

    Where the items name their splits, those stand; a missing validation split is then taken from the training
    patients, in the proportion of the two fractions, and a missing test split stays empty. Where no item names one,
    all patients are divided. Patients are drawn within strata of equal labels, by a hash of seed and pseudonym, so
    that the outcome depends on neither the order of the rows nor the machine.

    A balanced test set is drawn before anything else, from the images whose split is "test" or, where there are none,
    from those for training. It takes the place of the test split: its patients' other images, and other images for
    testing, are left out.

    Args:
        items: what a ``datalist`` function returns; those whose image is not there are left out, and counted
            (:func:`cleft_bundle.data.item_checks.present_items`).
        fractions: share of the patients for train, validation and test, or a dictionary with these names.
        seed: another seed draws other patients. Of two, the first draws splits and balanced test sets, and the second
            decides which training patients a ``train_fraction`` keeps.
        classes: names of the labels, for the balanced test set and the messages of :func:`check_labels`.
        shared_patients: what to do with patients whom the named splits put on several sides: "error", or "drop" to
            keep such a patient's images in the last of the splits (test before validation before train) and leave
            the others out, with their count in the log.
        balanced_test: None, the number of test images of every class, or from the names of some classes to their
            numbers (:func:`cleft_bundle.data.subsets.balanced_set`).
        train_fraction: share of the training patients to keep
            (:func:`cleft_bundle.data.subsets.patient_fraction`); validation and test stay whole.
        test_fraction: share of the validation patients who become the test split of a set that names a validation
            split and no test split: what is chosen on validation can then be tried on others.
        task: the log says how many images of each split have no label that this task can use
            (:mod:`cleft_bundle.data.usable_labels`); None: nothing is said of labels.
        shared_pictures: what to do with pictures that stand in several splits under different patients: "warn" once
            they are read for training or evaluation; "error"; or "drop" to keep them in the last of the splits. The
            last two read every image once more (:func:`cleft_bundle.data.pictures.part_pictures`).

    Returns:
        Items under "train", "validation" and "test", each a copy with its ``split`` and sorted by name.

    Raises:
        BundleError: what :func:`present_items` and :func:`check_labels` raise; fractions that are none;
            some items with a split and some without; a patient on two sides; too few patients for training and
            validation; a class that is short of cases for the balanced test set; a test fraction where there is a test
            split, or no validation split.

    Examples:
        >>> from pathlib import Path
        >>> items = [
        ...     {"name": str(n), "image": f"{n}.png", "patient_id": str(n // 2), "caption": "normal", "label": []}
        ...     | {"split": ""}  # or the one that a table gives it
        ...     for n in range(20)
        ... ]
        >>> _ = [Path(item["image"]).write_text(item["name"]) for item in items]
        >>> splits = make_splits(items, fractions=(0.6, 0.2, 0.2))
        >>> {name: len({item["patient_id"] for item in part}) for name, part in splits.items()}
        {'train': 6, 'validation': 2, 'test': 2}
    """
    items = present_items(items)
    check_labels(items, classes)
    seed, subset_seed = seed if isinstance(seed, tuple) else (seed, seed)
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
    if test_fraction:
        fixed = _with_test(fixed, test_fraction, seed)
    if balanced_test is not None:
        pool, fixed = _with_balanced_test(pool, fixed, balanced_test, classes or (), seed)
        drawn = {**drawn, "test": 0.0}
    side_of = draw_sides(pool, drawn, seed)
    divided: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in fixed:
        divided[str(item["split"])].append(changed(item))
    for item in pool:
        side = side_of[item["patient_id"]]
        divided[side].append(changed(item, split=side))
    divided = part_pictures(divided, shared_pictures)
    divided["train"] = patient_fraction(divided["train"], train_fraction, subset_seed)
    for split, members in divided.items():
        members.sort(key=lambda item: item["name"])
        usable = label_summary(members, task) if task else ""
        logger.info("%s: %d images of %d patients%s", split, len(members),
                    len({item["patient_id"] for item in members}), usable and f"; {usable}")  # fmt: skip
    return divided


def select_split(splits: Mapping[str, list[Item]], name: str) -> list[Item]:
    """Take one split of :func:`make_splits`.

    Raises:
        BundleError: where there is no such split or it holds no image; names those that do.

    Examples:
        >>> [item["image"] for item in select_split({"train": [{"image": "a.png"}], "validation": []}, "train")]
        ['a.png']
    """
    if not splits.get(name):
        filled = ", ".join(key for key, items in splits.items() if items)
        raise BundleError(f"split {name!r} holds no image; splits with images are {filled}")
    return splits[name]


def reported_split(splits: Mapping[str, Sequence[Item]]) -> str:
    """The split on whose images figures are reported unless one is named: ``test``, or ``validation`` without it."""
    return "test" if splits["test"] else "validation"


def calibration_items(splits: Mapping[str, Sequence[Item]], evaluate_split: str) -> list[Item]:
    """The items on which the calibration of an evaluation is chosen, where they are not the evaluated ones.

    Args:
        splits: what :func:`make_splits` returns.
        evaluate_split: the split that is evaluated.

    Returns:
        the validation items for the split ``test``; none for any other.
    """
    return list(splits["validation"]) if evaluate_split == "test" else []


def draw_sides(
    items: Sequence[Item], shares: Mapping[str, float], seed: int, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every patient a split.

    Patients are put in order of their labels (a finding counts if any image has it) and then of their hash. Walking
    along, each goes to the split that lacks most of its share so far: equal labels lie side by side, so every split
    gets its share of each stratum to within one patient or so.

    Args:
        items: with ``patient_id`` and ``label``.
        shares: from splits to their share of the patients.
        seed: another seed draws other patients.
        known: patients who have a split already and keep it, as where a set grows.

    Returns:
        from patients to splits.

    Raises:
        BundleError: where no patient is left for a split other than "test" that has a share.
    """
    labels = patient_labels(items)
    fixed = known or {}

    def position(patient: str) -> tuple[tuple[bool, ...], str]:
        return labels[patient], digest(seed, patient)

    total = sum(shares.values())
    counts = dict.fromkeys(shares, 0)
    side_of = {}
    for number, patient in enumerate(sorted(labels, key=position), start=1):
        side = fixed.get(patient) or max(counts, key=lambda split: number * shares[split] / total - counts[split])
        counts[side] += 1
        side_of[patient] = side
    for split, share in shares.items():
        if share and not counts[split]:
            message = f"{len(labels)} patients are too few for a {split} share of {share:g}"
            if split != "test":
                raise BundleError(f"{message}: expected at least one patient in it")
            logger.warning("%s: it is empty", message)
    return side_of


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
        sides[item["patient_id"]].add(str(item["split"]))
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


def _with_test(fixed: list[Item], test_fraction: float, seed: int) -> list[Item]:
    """The items of named splits once a share of the validation patients has become the test split."""
    if not 0 < test_fraction < 1:
        raise BundleError(f"test_fraction={test_fraction}: expected a share of the validation patients from 0 to 1")
    if {item["split"] for item in fixed} != {"validation"}:
        raise BundleError(
            f"test_fraction={test_fraction}: expected a set that names a validation split and no test split"
        )
    side_of = draw_sides(fixed, {"validation": 1 - test_fraction, "test": test_fraction}, seed)
    return [changed(item, split=side_of[item["patient_id"]]) for item in fixed]


def _with_balanced_test(
    pool: list[Item], fixed: list[Item], counts: int | Mapping[str, int], classes: Sequence[str], seed: int
) -> tuple[list[Item], list[Item]]:
    """Pool and fixed items once a balanced test set has been drawn from the one or the other."""
    named_test = [item for item in fixed if item["split"] == "test"]
    test = [changed(item, split="test") for item in balanced_set(named_test or pool, counts, classes, seed)]
    patients = {item["patient_id"] for item in test}
    rest = [item for item in pool if item["patient_id"] not in patients]
    kept = [item for item in fixed if item["split"] != "test"]
    left_out = len(pool) + len(fixed) - len(rest) - len(kept) - len(test)
    logger.info("balanced test set: %d images of %d patients; left out: %d other images of these patients and of the "
                "test split", len(test), len(patients), left_out)  # fmt: skip
    return rest, [*kept, *test]
