"""Calibration in a population, and the net benefit of acting on probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.stats import t  # type: ignore[import-untyped]

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Basis, Interval

_EDGE = 1e-12  # of probabilities, whose logarithm of the odds must be finite
_STEPS = 100
_LARGEST = 1e4  # of a slope or an intercept; what runs on has no finite solution
THRESHOLDS = np.arange(1, 100) / 100


@dataclass(frozen=True)
class CalibrationLine:
    """Line from the log odds that were predicted to those that came true; a figure that does not exist is NaN.

    Args:
        slope: of the line: 1 where probabilities are as spread as they should be, less where they are too extreme.
        intercept: of the same line: 0 where they are right.
        in_the_large: intercept of a line of slope 1: above 0 where probabilities are too low on average.
    """

    slope: Interval
    intercept: Interval
    in_the_large: Interval


@dataclass(frozen=True)
class DecisionCurve:
    """The net benefit of acting on a score, in true positives per image: what false positives cost is taken off.

    Args:
        thresholds: probabilities from which on one would act, [T]; their odds are what a false positive costs.
        model: of acting where the score reaches the threshold, [T].
        treat_all: of acting on every image, [T].
        treat_none: of never acting, [T] of 0.
    """

    thresholds: np.ndarray
    model: np.ndarray
    treat_all: np.ndarray
    treat_none: np.ndarray


def calibration_line(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
) -> CalibrationLine:
    """Fit a logistic regression of what came true on the log odds of the probabilities.

    Intervals are of Student's t with the sandwich variance, in which images of a patient may depend on each other.

    Args:
        scores: probabilities [N].
        labels: [N] of 1, 0 and NaN (unknown, left out).
        patients: [N], whose image each one is; None: each of another patient.
        confidence: of the intervals.

    Returns:
        figures without an interval where fewer than :data:`cleft_bundle.metrics.MIN_SUPPORT` patients have the finding
        or do not, and NaN where there is none, as where a probability parts all positives from all negatives.

    Raises:
        BundleError: where scores are no probabilities.

    Source: Cox, "Two further applications of a model for binary regression", 1958; Van Calster et al., "Calibration:
    the Achilles heel of predictive analytics", 2019; Liang and Zeger, 1986, for the variance.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _require_probabilities(scores)
    known = ~np.isnan(labels)
    owners = np.arange(len(labels)) if patients is None else np.asarray(patients, dtype=str)
    _, owner = np.unique(owners[known], return_inverse=True)
    odds, truth = logit(np.clip(scores[known], _EDGE, 1 - _EDGE)), labels[known]
    sides = [len(np.unique(owner[truth == side])) for side in (1, 0)]
    basis = Basis(len(truth), len(np.unique(owner)), min(sides), largest=None)
    constant = np.ones((len(truth), 1))
    line = _logistic(np.column_stack([constant, odds]), truth, np.zeros(len(truth)), owner)
    level = _logistic(constant, truth, odds, owner)
    intercept, slope = (_interval(line, number, basis, confidence) for number in (0, 1))
    return CalibrationLine(slope, intercept, _interval(level, 0, basis, confidence))


def decision_curve(
    scores: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] | np.ndarray = THRESHOLDS
) -> DecisionCurve:
    """Compute the net benefit of a score, of acting on all and of acting on none.

    Args:
        scores: probabilities [N].
        labels: [N] of 1, 0 and NaN (unknown, left out).
        thresholds: probabilities [T], each above 0 and below 1.

    Raises:
        BundleError: where scores are no probabilities, no label is known, or a threshold does not lie between 0 and 1.

    Source: Vickers and Elkin, "Decision curve analysis", 2006.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _require_probabilities(scores)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if not ((cuts > 0) & (cuts < 1)).all():
        raise BundleError(f"decision curve: expected thresholds between 0 and 1, got {cuts.min():g} to {cuts.max():g}")
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    count = len(positive) + len(negative)
    if not count:
        raise BundleError("decision curve: expected known labels, found none")
    cost = cuts / (1 - cuts)
    true = len(positive) - np.searchsorted(positive, cuts, side="left")
    false = len(negative) - np.searchsorted(negative, cuts, side="left")
    everyone = (len(positive) - cost * len(negative)) / count
    return DecisionCurve(cuts, (true - cost * false) / count, everyone, np.zeros(len(cuts)))


def _require_probabilities(scores: np.ndarray) -> None:
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise BundleError(f"expected probabilities, got scores from {scores.min():.3g} to {scores.max():.3g}")


def _logistic(
    design: np.ndarray, truth: np.ndarray, offset: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients [P] and their variance [P, P] by patients; None where the likelihood has no maximum."""
    if not 0 < truth.sum() < len(truth):
        return None
    found = np.zeros(design.shape[1])
    value = _loss(design @ found + offset, truth)
    for _ in range(_STEPS):
        chance = expit(design @ found + offset)
        information = (design * (chance * (1 - chance))[:, None]).T @ design
        slope = design.T @ (truth - chance)
        if np.linalg.cond(information) > 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(information, slope)
        while (trial := _loss(design @ (found + step) + offset, truth)) > value + 1e-12 and np.abs(step).max() > 1e-12:
            step = step / 2
        found, value = found + step, trial
        if np.abs(found).max() > _LARGEST:
            return None
        if np.abs(step).max() < 1e-10:
            break
    if value < 1e-6 * len(truth):
        return None  # told apart without an error
    count = int(owner.max()) + 1
    excess = (truth - expit(design @ found + offset))[:, None] * design
    sums = np.column_stack([np.bincount(owner, weights=column, minlength=count) for column in excess.T])
    inverse = np.linalg.inv(information)
    return found, inverse @ (sums.T @ sums) @ inverse * count / max(count - 1, 1)


def _loss(odds: np.ndarray, truth: np.ndarray) -> float:
    return float((np.logaddexp(0, odds) - truth * odds).sum())


def _interval(fit: tuple[np.ndarray, np.ndarray] | None, number: int, basis: Basis, confidence: float) -> Interval:
    if fit is None:
        return basis.interval(float("nan"))
    value = float(fit[0][number])
    if basis.support < MIN_SUPPORT:
        return basis.interval(value)
    half = float(t.ppf((1 + confidence) / 2, basis.support - 1) * np.sqrt(fit[1][number, number]))
    return basis.interval(value, value - half, value + half)
