"""Thresholds for screening: chosen on validation, reported on test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics.classification import ClassificationMetrics
from cleft_bundle.metrics.intervals import Basis, Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.ranking import ratio
from cleft_bundle.metrics.resampling import resample

Rule = Literal["sensitivity", "specificity", "youden"]
_FIGURES = ("sensitivity", "specificity", "ppv", "npv")
_ROUNDING = 1e-12


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does to the images of a test set; a figure without a definition is NaN.

    Args:
        threshold: the score from which on an image is called positive.
        prevalence: share of positives that PPV and NPV are stated for, in 0..1.
        sensitivity: with its interval, as all that follow.
        specificity: share of the negatives below the threshold.
        ppv: share of positives among those called positive, at that prevalence.
        npv: share of negatives among those called negative, at that prevalence.
    """

    threshold: float
    prevalence: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


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

    ``sensitivity`` takes the highest threshold that still has this sensitivity, so that specificity is best;
    ``specificity`` the lowest one that has this specificity; ``youden`` the one with the highest sum of both, and of
    several the lowest.

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
    candidates = np.unique(np.concatenate([positive, negative]))
    candidates = np.append(candidates, np.nextafter(candidates[-1], np.inf))  # the last one calls nothing positive
    sensitivity = 1 - np.searchsorted(positive, candidates) / len(positive)
    specificity = np.searchsorted(negative, candidates) / len(negative)
    if target is None:
        return float(candidates[np.argmax(np.round(sensitivity + specificity, 12))])
    if rule == "sensitivity":
        return float(candidates[sensitivity >= target - _ROUNDING][-1])
    return float(candidates[specificity >= target - _ROUNDING][0])


def choose_thresholds(validation: Predictions, rule: Rule, target: float | None = None) -> dict[str, float]:
    """Choose a threshold for each class on validation predictions, see :func:`choose_threshold`.

    For ``multiclass`` each class is set against all others.

    Returns:
        names of classes to thresholds; classes without both sides are absent.

    Raises:
        BundleError: as :func:`choose_threshold` does.
    """
    columns = zip(validation.class_names, validation.scores.T, validation.labels.T, strict=True)
    return {
        name: choose_threshold(scores, labels, rule, target)
        for name, scores, labels in columns
        if {0, 1} <= set(labels[~np.isnan(labels)])
    }


def apply_thresholds(
    test: Predictions,
    thresholds: Mapping[str, float],
    prevalence: float | Mapping[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, OperatingPoint]:
    """Report what thresholds do on test predictions, with intervals by resampling patients.

    The thresholds are taken as given: intervals say nothing of how they might have come out on other validation images.

    Args:
        test: of N images, others than the thresholds were chosen on.
        thresholds: names of classes to thresholds, as of :func:`choose_thresholds`.
        prevalence: share of positives that PPV and NPV are stated for, one or by class; None: that of the test images.
        resamples: number of resamples.
        seed: of the draws.
        confidence: of the intervals.

    Returns:
        names of the classes that have a threshold to what it does.

    Raises:
        BundleError: where a class is not known, or a prevalence does not lie between 0 and 1.
    """
    if strange := set(thresholds) - set(test.class_names):
        raise BundleError(f"thresholds: {', '.join(sorted(strange))} are none of {', '.join(test.class_names)}")
    names = [name for name in test.class_names if name in thresholds]
    columns = [test.class_names.index(name) for name in names]
    labels = test.labels[:, columns]
    chosen = replace(
        test, scores=test.scores[:, columns], labels=labels, class_names=names, task="multilabel", groups={}
    )
    if prevalence is None:
        shares = np.array([np.nan if np.isnan(column).all() else np.nanmean(column) for column in labels.T])
    else:
        given = prevalence if isinstance(prevalence, Mapping) else dict.fromkeys(names, prevalence)
        if missing := [name for name in names if not 0 < given.get(name, -1) < 1]:
            raise BundleError(f"prevalence: expected a number between 0 and 1 for each class, not so: {missing[0]}")
        shares = np.array([given[name] for name in names])
    statistic = _PredictiveValues(chosen, [thresholds[name] for name in names], shares)
    resampled = resample(statistic, chosen.patient_numbers(), resamples, seed, "operating points")
    points = {}
    for name, share in zip(names, shares, strict=True):
        figures = [resampled.interval(f"{figure}/{name}", confidence) for figure in _FIGURES]
        points[name] = OperatingPoint(thresholds[name], float(share), *figures)
    return points


class _PredictiveValues:
    """Sensitivity and specificity, and the predictive values that Bayes' rule makes of them at a prevalence."""

    def __init__(self, predictions: Predictions, thresholds: list[float], prevalence: np.ndarray) -> None:
        self.counts = ClassificationMetrics(predictions, _FIGURES[:2], thresholds)
        self.prevalence = dict(zip(predictions.class_names, prevalence, strict=True))

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        values = self.counts(weights)
        figures: dict[str, np.ndarray] = {}
        for name, share in self.prevalence.items():
            sensitivity, specificity = (values[f"{figure}/{name}"] for figure in _FIGURES[:2])
            true_positive, false_positive = sensitivity * share, (1 - specificity) * (1 - share)
            true_negative, false_negative = specificity * (1 - share), (1 - sensitivity) * share
            ppv = ratio(true_positive, true_positive + false_positive)
            npv = ratio(true_negative, true_negative + false_negative)
            figures |= {
                f"{figure}/{name}": value
                for figure, value in zip(_FIGURES, (sensitivity, specificity, ppv, npv), strict=True)
            }
        return figures

    def basis(self) -> dict[str, Basis]:
        basis = self.counts.basis()
        for name in self.prevalence:
            both = [basis[f"{figure}/{name}"] for figure in _FIGURES[:2]]
            rarer = replace(both[0], support=min(side.support for side in both))
            basis |= {f"ppv/{name}": rarer, f"npv/{name}": rarer}
        return basis
