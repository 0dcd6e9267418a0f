"""Thresholds for screening, chosen on validation."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics.predictions import Predictions

Rule = Literal["sensitivity", "specificity", "youden"]
_ROUNDING = 1e-12
_ALIKE = 1e-5  # share of a score by which those of one image may differ between forms of a classifier
_LEAST = 1e-30  # the same of scores next to zero
_CHAIN = 100
_FINEST = 1e-8


def check_rule(rule: Rule, target: float | None) -> None:
    """Refuse an unknown rule and a target that does not fit it.

    Raises:
        BundleError: names what is wrong.
    """
    require_one_of("rule", rule, get_args(Rule))
    if (rule == "youden") != (target is None):
        raise BundleError(f"rule '{rule}': expected {'no' if rule == 'youden' else 'a'} target, got {target}")
    if target is not None and not 0 <= target <= 1:
        raise BundleError(f"rule '{rule}': expected a target in 0..1, got {target}")


def choose_threshold(scores: np.ndarray, labels: np.ndarray, rule: Rule, target: float | None = None) -> float:
    """Choose the threshold of one class, a score from which on images are called positive.

    ``sensitivity`` takes, of the thresholds that have this sensitivity, the one with the highest specificity, and of
    several of these the lowest, which misses least: a class that is told apart without an error has none.
    ``specificity`` takes, of those that have this specificity, the one with the highest sensitivity, and of several the
    highest. ``youden`` takes the one with the highest sum of both, and of several the lowest.

    The threshold lies midway between two neighbouring scores, never on one: the same image's score differs by rounding
    between float32 and float64, PyTorch and an export, and between sizes of a batch, and is called alike in all of
    them. Scores closer together than one part in 100,000 count as equal, and a threshold never parts them.

    Args:
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
        rule: how to choose.
        target: sensitivity or specificity to reach, in 0..1; ``youden`` takes none.

    Raises:
        BundleError: an unknown rule, a target that does not fit it, or a class without both sides.

    Source: Youden, "Index for rating diagnostic tests", 1950.
    """
    check_rule(rule, target)
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    if not len(positive) or not len(negative):
        raise BundleError(f"threshold: expected both sides, got {len(positive)} positive and {len(negative)} negative")
    candidates = _between(np.concatenate([positive, negative]))
    sensitivity = 1 - np.searchsorted(positive, candidates) / len(positive)
    specificity = np.searchsorted(negative, candidates) / len(negative)
    if target is None:
        return float(candidates[np.argmax(np.round(sensitivity + specificity, 12))])
    if rule == "sensitivity":
        reached = np.where(sensitivity >= target - _ROUNDING, specificity, -1.0)
        return float(candidates[np.flatnonzero(reached == reached.max())[0]])
    reached = np.where(specificity >= target - _ROUNDING, sensitivity, -1.0)
    return float(candidates[np.flatnonzero(reached == reached.max())[-1]])


def choose_thresholds(validation: Predictions, rule: Rule, target: float | None = None) -> dict[str, float]:
    """Choose a threshold for each class on validation predictions, see :func:`choose_threshold`.

    For ``multiclass`` each class is set against all others.

    Returns:
        names of classes to thresholds; classes without both sides are absent.

    Raises:
        BundleError: as :func:`choose_threshold` does.

    Examples:
        >>> from cleft_bundle.metrics import Predictions
        >>> predictions = Predictions(
        ...     scores=[[0.9, 0.2], [0.8, 0.4], [0.3, 0.7], [0.1, 0.6]],
        ...     labels=[[1, 0], [1, 0], [0, 1], [0, 1]],
        ...     class_names=["edema", "mass"],
        ...     task="multilabel",
        ...     names=["a.dcm", "b.dcm", "c.dcm", "d.dcm"],
        ...     patients=["1", "2", "3", "4"],
        ... )
        >>> choose_thresholds(predictions, "youden")
        {'edema': 0.55, 'mass': 0.5}
    """
    columns = zip(validation.class_names, validation.scores.T, validation.labels.T, strict=True)
    return {
        name: choose_threshold(scores, labels, rule, target)
        for name, scores, labels in columns
        if {0, 1} <= set(labels[~np.isnan(labels)])
    }


def _between(scores: np.ndarray) -> np.ndarray:
    """Thresholds that part scores, rising: one below all, those between neighbours, one above all."""
    rising = np.unique(scores)
    near, far = rising[:-1], rising[1:]
    tolerance = _ALIKE
    while True:
        parted = far - near > tolerance * np.maximum(np.abs(near), np.abs(far)) + _LEAST
        starts, ends = np.append(rising[:1], far[parted]), np.append(near[parted], rising[-1:])
        # so many scores that chains of near ones join what is not alike: less must do
        if tolerance < _FINEST or (ends - starts <= _CHAIN * tolerance * np.abs(ends) + _LEAST).all():
            break
        tolerance /= 10
    margin = _ALIKE * np.abs(rising[[0, -1]]) + _LEAST
    return np.concatenate([[rising[0] - margin[0]], (near[parted] + far[parted]) / 2, [rising[-1] + margin[1]]])
