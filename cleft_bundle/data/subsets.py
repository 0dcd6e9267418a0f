"""Parts of a datalist: balanced test sets, and fractions of the training patients that lie in one another.

Both go by patient and draw by a hash of seed and name, so that neither the order of the rows nor the machine matters.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)


def balanced_set(
    items: Sequence[Item], counts: int | Mapping[str, int], classes: Sequence[str], seed: int = 0
) -> list[Item]:
    """Draw a set with as many images of each class as are asked for, such as CheXpert-5x200.

    An image is a case of a class where it is positive for that class and known to be negative for the others that are
    asked for. Images of different patients come before second images of the same one.

    Args:
        items: what to draw from, with ``label`` in the order of ``classes``.
        counts: images of every class, or from the names of some classes to their number.
        classes: names of the labels.
        seed: another seed draws other images.

    Returns:
        The drawn items, sorted by name; in all as many as the counts add up to.

    Raises:
        BundleError: a count is no positive number, a name is none of the classes, or classes are short of cases: names
            each of these, and the cases of all.
    """
    wanted = dict(counts) if isinstance(counts, Mapping) else dict.fromkeys(classes, counts)
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise BundleError(f"balanced_test: '{unknown[0]}' is none of the classes {', '.join(classes)}")
    if len(wanted) < 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in wanted.values()):
        raise BundleError(f"balanced_test={counts}: expected 1 image or more of each of two classes or more")
    labels = np.array([item["label"] for item in items], dtype=float).reshape(len(items), len(classes))
    labels = labels[:, [list(classes).index(name) for name in wanted]]
    exclusive = labels.sum(axis=1) == 1  # a sum over an unknown label is NaN
    cases = {
        name: [items[row] for row in np.flatnonzero(exclusive & (labels[:, column] == 1)).tolist()]
        for column, name in enumerate(wanted)
    }
    short = [f"{name} ({len(cases[name])} of {count})" for name, count in wanted.items() if len(cases[name]) < count]
    if short:
        found = ", ".join(f"{name} {len(members)}" for name, members in cases.items())
        raise BundleError(
            f"balanced_test: short of cases of {', '.join(short)}; images positive for one class alone: {found}"
        )
    drawn = [item for name, count in wanted.items() for item in _patients_first(cases[name], seed)[:count]]
    return sorted(drawn, key=lambda item: item["name"])


def _patients_first(items: Iterable[Item], seed: int) -> list[Item]:
    """In the order of a hash, the first image of each patient before the second ones."""
    seen: Counter[str] = Counter()
    ranked = []
    for item in sorted(items, key=lambda item: digest(seed, item["name"])):
        ranked.append((seen[item["patient_id"]], item))
        seen[item["patient_id"]] += 1
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]


def patient_fraction(items: Sequence[Item], fraction: float, seed: int = 0) -> list[Item]:
    """Keep a share of the patients; a smaller share lies within every larger one of the same seed.

    All patients are put into one order, of which a share takes the beginning. In front stand patients who together
    have every class, rarest class first; the others are mixed so that every beginning holds each stratum of equal
    labels in proportion.

    Args:
        items: items with ``patient_id`` and ``label``.
        fraction: share of the patients, above 0 and up to 1.
        seed: another seed keeps other patients.

    Returns:
        The items of the patients who are kept, at least one, in the order in which they were given.

    Raises:
        BundleError: where the fraction is no such number.

    Examples:
        >>> items = [{"image": f"{n}.png", "patient_id": str(n), "label": [n % 2, 1 - n % 2]} for n in range(20)]
        >>> len(patient_fraction(items, 0.5))
        10
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise BundleError(f"train_fraction={fraction}: expected a number above 0 and up to 1")
    if fraction == 1:
        return list(items)
    order = _nested_order(patient_labels(items), seed)
    kept = set(order[: max(1, round(fraction * len(order)))])
    logger.info("train_fraction %g: %d of %d training patients kept", fraction, len(kept), len(order))
    return [item for item in items if item["patient_id"] in kept]


def _nested_order(labels: Mapping[str, tuple[bool, ...]], seed: int) -> list[str]:
    """All patients, so that every beginning of the list is a stratified sample."""
    strata: dict[tuple[bool, ...], list[str]] = defaultdict(list)
    for patient in sorted(labels, key=lambda patient: digest(seed, patient)):
        strata[labels[patient]].append(patient)
    place = {}
    for pattern, patients in strata.items():
        # systematic sampling: the stratum's patients lie at equal distances from 0 to 1, shifted at random
        shift = int(digest(seed, pattern)[:8], 16) / 16**8
        place.update({patient: (number + shift) / len(patients) for number, patient in enumerate(patients)})
    order = sorted(labels, key=lambda patient: (place[patient], digest(seed, patient)))
    totals = np.array(list(labels.values())).sum(axis=0)
    front: dict[str, None] = {}
    covered = np.zeros(len(totals), dtype=bool)
    for column in np.argsort(totals, kind="stable"):
        if totals[column] and not covered[column]:
            first = next(patient for patient in order if labels[patient][column])
            front[first] = None
            covered |= labels[first]
    return [*front, *(patient for patient in order if patient not in front)]


def patient_labels(items: Iterable[Item]) -> dict[str, tuple[bool, ...]]:
    """From each patient to the classes that any of the images is positive for."""
    labels: dict[str, tuple[bool, ...]] = {}
    for item in items:
        known = tuple(bool(value == 1.0) for value in item["label"])
        before = labels.get(item["patient_id"], known)
        labels[item["patient_id"]] = tuple(map(max, before, known))
    return labels


def digest(seed: int, key: object) -> str:
    """Hexadecimal digits that stand for chance: equal on every machine, different for every seed."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
