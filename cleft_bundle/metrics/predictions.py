"""Predictions of an evaluation: scores, labels, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from cleft_bundle.data.usable_labels import exclusive
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.vocabulary import Task


@dataclass(frozen=True)
class Predictions:
    """The scores of N images for K classes; all statistics are functions of it.

    Args:
        scores: [N, K], finite, higher where the class is more likely; probabilities where calibration is asked for.
        labels: [N, K] of 1, 0 and NaN (unknown, which does not count for that class). For ``multiclass`` they are kept
            as :func:`cleft_bundle.data.usable_labels.exclusive` reads them: an image of several classes is unknown.
        class_names: the K names.
        task: ``multiclass`` (at most one class per image, the predicted one has the highest score) or ``multilabel``.
        names: [N], what each image is called; no two alike.
        patients: [N], the pseudonym of each image's patient.
        groups: name of a group, such as ``sex``, to the [N] values of the images, None where unknown.

    Raises:
        BundleError: names what does not fit, and the image where it is one.

    Examples:
        >>> predictions = Predictions(
        ...     scores=[[0.9, 0.2], [0.8, 0.4], [0.3, 0.7], [0.1, 0.6]],
        ...     labels=[[1, 0], [1, 0], [0, 1], [0, 1]],
        ...     class_names=["edema", "mass"],
        ...     task="multilabel",
        ...     names=["a.dcm", "b.dcm", "c.dcm", "d.dcm"],
        ...     patients=["1", "2", "3", "4"],
        ... )
        >>> len(predictions.names)
        4
    """

    scores: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    task: Task
    names: Sequence[str] | np.ndarray
    patients: Sequence[str] | np.ndarray
    groups: Mapping[str, Sequence[object] | np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn what was given into arrays, and check it."""
        require_one_of("task", self.task, get_args(Task))
        for name, values in (("scores", self.scores), ("labels", self.labels)):
            object.__setattr__(self, name, np.asarray(values, dtype=np.float64))
        for name, given in (("names", self.names), ("patients", self.patients)):
            object.__setattr__(self, name, _objects(given))
        object.__setattr__(self, "class_names", list(self.class_names))
        object.__setattr__(self, "groups", {name: _objects(values) for name, values in self.groups.items()})
        self._check_shapes()
        self._refuse(~np.isfinite(self.scores).all(axis=1), "a score that is not a finite number")
        known = ~np.isnan(self.labels)
        self._refuse((known & (self.labels != 0) & (self.labels != 1)).any(axis=1), "a label other than 1, 0 and NaN")
        self._refuse(np.array([patient is None for patient in self.patients]), "no patient")
        if self.task == "multiclass":
            object.__setattr__(self, "labels", exclusive(self.labels))
        if len(set(self.names)) < len(self):
            raise BundleError(f"predictions: {len(self) - len(set(self.names))} of {len(self)} images are listed twice")

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of some images.

        Args:
            rows: boolean [N] or int [M].
        """
        groups = {name: np.asarray(values)[rows] for name, values in self.groups.items()}
        names, patients = np.asarray(self.names)[rows], np.asarray(self.patients)[rows]
        scores, labels = self.scores[rows], self.labels[rows]
        return Predictions(scores, labels, self.class_names, self.task, names, patients, groups)

    def patient_numbers(self) -> np.ndarray:
        """Number the patients: int [N], from 0."""
        return np.unique(np.asarray(self.patients, dtype=str), return_inverse=True)[1]

    def _check_shapes(self) -> None:
        shape = (len(self.names), len(self.class_names))
        if not len(self.names):
            raise BundleError("predictions: there is no image")
        for name, values in (("scores", self.scores), ("labels", self.labels)):
            if values.shape != shape:
                raise BundleError(
                    f"predictions: expected {name} of {shape[0]} images x {shape[1]} classes, got shape {values.shape}"
                )
        for name, column in {"patients": self.patients, **self.groups}.items():
            if len(column) != len(self):
                raise BundleError(f"predictions: {name} has {len(column)} values for {len(self)} images")

    def _refuse(self, wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            first = ", ".join(map(str, np.asarray(self.names)[wrong][:5]))
            raise BundleError(f"predictions: {wrong.sum()} of {len(wrong)} images have {what}, the first: {first}")


def align(first: Predictions, second: Predictions) -> Predictions:
    """Return the second predictions in the order of the first.

    Raises:
        BundleError: where images, patients, labels, classes or task differ.
    """
    for name in ("task", "class_names"):
        if getattr(first, name) != getattr(second, name):
            raise BundleError(f"paired comparison: {name} differs: {getattr(first, name)} and {getattr(second, name)}")
    place = {name: index for index, name in enumerate(second.names)}
    own = set(first.names)
    missing = [name for name in first.names if name not in place] or [name for name in place if name not in own]
    if missing:
        raise BundleError(f"paired comparison: {len(missing)} images are in one only, the first: {missing[0]}")
    second = second.select(np.array([place[name] for name in first.names]))
    differ = np.asarray(first.patients) != np.asarray(second.patients)
    differ |= ~np.isclose(first.labels, second.labels, equal_nan=True).all(axis=1)
    if differ.any():
        name = np.asarray(first.names)[differ][0]
        raise BundleError(f"paired comparison: {differ.sum()} images differ in labels or patient, the first: {name}")
    return second


def _objects(values: Sequence[object] | np.ndarray) -> np.ndarray:
    """An object array, in which NaN and None alike are None."""
    array = np.empty(len(values), dtype=object)
    array[:] = [None if value is None or value != value else value for value in values]  # noqa: PLR0124 - NaN
    return array
