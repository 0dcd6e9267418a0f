"""The ground of a report: scores, labels and items, from wherever they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics import Calibration, Predictions
from cleft_bundle.vocabulary import SEX_WORDS, SIDE_WORDS, Task

#: What of an item tells groups of patients and images apart.
GROUPS = (
    *("sex", "age", "race", "ethnicity", "view", "laterality", "density", "manufacturer"),
    "presentation_intent",
)
_WORDS = {"sex": SEX_WORDS, "laterality": SIDE_WORDS}
_AGES = {18: "0 to 17", 40: "18 to 39", 60: "40 to 59", 80: "60 to 79", 999: "80 and over"}  # years, below each bound


@dataclass(frozen=True)
class ScoredImages:
    """The answers of a classifier for N images, beside what is true of them.

    Args:
        class_names: names of the K classes.
        task: ``multiclass`` (the class with the highest score is called) or ``multilabel`` (each class from its
            threshold on).
        scores: float [N, K], as the classifier gives them, after its own calibration; a row of NaN where it has none.
        labels: float [N, K] of 1, 0 and NaN (unknown).
        items: the N images: ``name`` (no two alike), ``patient_id``, and where they are known ``image`` (path),
            ``study_id``, ``split`` and any of :data:`GROUPS`.
        name: what the classifier is called.
        errors: [N], why an image has no score, "" where it has one; empty: every image has.
        logits: float [N, K], from which calibration made the scores; None where they are not known.
        thresholds: name of a class to the score from which on it is called; classes without one are absent. None: no
            threshold is known.
        calibration: how logits became scores: ``method``, ``temperature``, ``bias`` by class; empty where not known.
        conformal: limits of :func:`cleft_bundle.metrics.conformal.conformal_limits`; empty where not known.
        chosen: how and on what calibration and thresholds were chosen: ``rule``, ``target``, ``on`` (in words) and
            ``same_images`` (whether those are the images at hand); empty where not known.
        left_out: reasons why other images are not among the N, to ``images`` and ``patients`` (None: not known).
        provenance: where classifier and images come from, as JSON-able values.

    Raises:
        BundleError: names what does not fit.
    """

    class_names: Sequence[str]
    task: Task
    scores: np.ndarray
    labels: np.ndarray
    items: Sequence[Item]
    name: str = "classifier"
    errors: Sequence[str] = ()
    logits: np.ndarray | None = None
    thresholds: Mapping[str, float] | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)
    conformal: Mapping[str, float] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what was given."""
        require_one_of("task", self.task, get_args(Task))
        shape = (len(self.items), len(self.class_names))
        given = {"scores": self.scores, "labels": self.labels, "logits": self.logits}
        for name, values in given.items():
            if values is None:
                continue
            object.__setattr__(self, name, np.asarray(values, dtype=np.float64))
            if getattr(self, name).shape != shape:
                raise BundleError(
                    f"{self.name}: expected {name} of {shape[0]} images x {shape[1]} classes, "
                    f"got shape {np.shape(values)}"
                )
        object.__setattr__(self, "errors", list(self.errors) or [""] * len(self.items))
        if strange := set(self.thresholds or {}) - set(self.class_names):
            raise BundleError(
                f"thresholds: {', '.join(sorted(strange))} are none of the classes {', '.join(self.class_names)}"
            )
        if not self.scored.any():
            first = next((error for error in self.errors if error), "no score")
            raise BundleError(f"{self.name}: none of {len(self.items)} images has a score, the first: {first}")

    @cached_property
    def scored(self) -> np.ndarray:
        """Mask of the images that have an answer: bool [N]."""
        return np.isfinite(self.scores).all(axis=1) & np.array([not error for error in self.errors], dtype=bool)

    @cached_property
    def predictions(self) -> Predictions:
        """The images that have an answer, with as many of :data:`GROUPS` as any item knows."""
        items = self.scored_items
        groups = {
            key: [group_of(key, item.get(key)) for item in items]
            for key in GROUPS
            if any(item.get(key) is not None for item in items)
        }
        names, patients = [item["name"] for item in items], [item["patient_id"] for item in items]
        rows = self.scored
        return Predictions(self.scores[rows], self.labels[rows], self.class_names, self.task, names, patients, groups)

    @cached_property
    def scored_items(self) -> list[Item]:
        """The items of :attr:`predictions`, in its order."""
        return [item for item, kept in zip(self.items, self.scored, strict=True) if kept]

    @cached_property
    def uncalibrated(self) -> Predictions | None:
        """The same images with the scores before calibration; None where logits or calibration are not known."""
        if self.logits is None or self.calibration.get("method", "none") == "none":
            return None
        plain = Calibration(1.0, [0.0] * len(self.class_names), self.task)
        return replace(self.predictions, scores=plain(self.logits[self.scored]), groups={})

    @cached_property
    def are_probabilities(self) -> bool:
        """True where all scores lie in 0..1, so that calibration can be asked about."""
        scores = self.predictions.scores
        return bool(scores.min() >= 0 and scores.max() <= 1)

    @cached_property
    def limits(self) -> dict[str, float]:
        """The thresholds in the order of the classes; empty where none is known."""
        known = self.thresholds or {}
        return {name: float(known[name]) for name in self.class_names if name in known}

    def called(self) -> tuple[Predictions, list[float]] | None:
        """Classes that are called, as predictions and thresholds; None where nothing is.

        For ``multilabel`` the predictions are those of the classes that have a threshold. For ``multiclass`` they are
        all of them, and the thresholds play no part: the class with the highest score is called.
        """
        if self.task == "multiclass":
            return self.predictions, [0.5] * len(self.class_names)
        if not self.limits:
            return None
        columns = [number for number, name in enumerate(self.class_names) if name in self.limits]
        if len(columns) == len(self.class_names):
            return self.predictions, list(self.limits.values())
        predictions = self.predictions
        chosen = replace(
            predictions,
            scores=predictions.scores[:, columns],
            labels=predictions.labels[:, columns],
            class_names=list(self.limits),
        )
        return chosen, list(self.limits.values())


def group_of(key: str, value: Any) -> Any:
    """The value of a group as people read it: codes as words, ages in bands; None where it is unknown."""
    if value is None or value == "":
        return None
    if key == "age":
        return None if math.isnan(value) else next(band for bound, band in _AGES.items() if value < bound)
    return _WORDS.get(key, {}).get(value, value)


def row_order(names: Sequence[str], items: Sequence[Item]) -> list[int]:
    """The place of each item among some names.

    Raises:
        BundleError: where an item is not among them.
    """
    place = {name: row for row, name in enumerate(names)}
    missing = [item["name"] for item in items if item["name"] not in place]
    if missing:
        raise BundleError(f"report: {len(missing)} of {len(items)} images were not evaluated, the first: {missing[0]}")
    return [place[item["name"]] for item in items]
