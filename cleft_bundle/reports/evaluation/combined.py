"""Classes of a classifier added up to the coarser ones that labels know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import given_object
from cleft_bundle.vocabulary import Task


class Combination:
    """Add up the scores of classes that exclude each other, such as two kinds of pneumonia to pneumonia.

    Args:
        class_names: names of the K classes.
        task: of the classifier; only for ``multiclass`` is the sum of two probabilities that of either.
        given: JSON object of new names to lists of classes, or a file of one; None: everything stays.

    Attributes:
        class_names: names of the classes that come out: a new one stands in the place of its first class.

    Raises:
        BundleError: where the object is not as described, or the classes do not exclude each other.
    """

    def __init__(self, class_names: Sequence[str], task: Task, given: str | None) -> None:
        parts = _read(given) if given is not None else {}
        if parts and task != "multiclass":
            raise BundleError("combine: the scores of classes that can occur together cannot be added up")
        owner: dict[str, str] = {}
        for new, old in parts.items():
            for name in old:
                if name not in class_names:
                    raise BundleError(f"combine: '{name}' is no class{nearest(name, class_names)}")
                if name in owner:
                    raise BundleError(f"combine: '{name}' stands in two lists")
                owner[name] = new
        self.class_names = list(dict.fromkeys(owner.get(name, name) for name in class_names))
        if strange := [new for new in parts if new in class_names and new not in parts[new]]:
            raise BundleError(f"combine: '{strange[0]}' is the name of another class")
        if len(self.class_names) < 2 <= len(class_names):
            raise BundleError("combine: fewer than two classes are left")
        self.changes = bool(parts)
        place = {name: number for number, name in enumerate(self.class_names)}
        self._sums = np.zeros((len(class_names), len(self.class_names)))
        for number, name in enumerate(class_names):
            self._sums[number, place[owner.get(name, name)]] = 1

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Scores [N, M] of the combined classes of scores [N, K]; rows of NaN stay so."""
        return scores @ self._sums if self.changes else scores


def _read(given: str) -> dict[str, list[str]]:
    parts = given_object(given, "combine")
    good = all(isinstance(old, list) and old and all(isinstance(name, str) for name in old) for old in parts.values())
    if not good:
        raise BundleError(
            'combine: expected an object such as {"pneumonia": ["bacterial pneumonia", "viral pneumonia"]}'
        )
    return parts
