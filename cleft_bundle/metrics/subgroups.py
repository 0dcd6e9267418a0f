"""Every metric for every kind of patient and image, and how far the kinds lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cleft_bundle.metrics.classification import (
    CALIBRATION,
    METRICS,
    OBSERVED_EXPECTED,
    ClassificationMetrics,
    common_classes,
)
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Basis, Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, Resampled, difference, resample

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Gap:
    """The best and the worst value of a group in one metric.

    Args:
        best: value of the group with the best figure.
        worst: value of the group with the worst figure.
        difference: the larger figure minus the smaller one, both drawn from the same resamples, of means over the same
            classes. Since best and worst are picked from these very images, it tends to be too large.
        p_corrected: its p-value times the number of pairs that could have been picked (Bonferroni), at most 1.
    """

    best: str
    worst: str
    difference: Difference
    p_corrected: float


@dataclass(frozen=True)
class Subgroups:
    """The metrics by the values of one group, such as ``sex``.

    Args:
        intervals: value to the name of a metric to its interval. Every metric that is defined for all images is there;
            it is NaN where it is not defined for this value, and its bounds are where too few patients stand behind it.
            Means name the classes that they go over; where they are not those of ``classes``, which a small group may
            lack, the mean cannot be compared.
        gaps: name of a metric to best and worst value, where two values or more have an interval.
        too_small: name of a metric to the values that have no interval and are left out of ``gaps``.
        n_unknown: number of images whose value is not known.
        classes: name of a mean to the classes that it goes over in all values that are compared.
        overall: name of a mean to that of all images over these classes; NaN where there is none.
    """

    intervals: dict[str, dict[str, Interval]]
    gaps: dict[str, Gap]
    too_small: dict[str, list[str]]
    n_unknown: int
    classes: dict[str, list[str]]
    overall: dict[str, float]


def subgroup_metrics(
    predictions: Predictions,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    thresholds: float | Sequence[float] = 0.5,
) -> dict[str, Subgroups]:
    """Compute metrics for each value of each group of some predictions, with intervals by resampling patients.

    A mean over classes is compared between values over the same classes: those for which the metric is defined in every
    value whose own mean has an interval. Otherwise two groups alike in each class would differ where a class that is
    hard to tell occurs in one of them only. The gap of each class stands beside that of the mean.

    An interval needs :data:`cleft_bundle.metrics.MIN_SUPPORT` patients on the rarer side that the metric looks at: with
    and without the finding for AUROC, average precision and balanced accuracy, with it for sensitivity and F1, without
    it for specificity, called positive for precision, and any for the others.

    Args:
        predictions: of N images, with groups.
        metrics: some of :data:`cleft_bundle.metrics.METRICS`, or ``observed_expected``.
        resamples: number of resamples; all values meet the same ones.
        seed: of the draws.
        confidence: of the intervals.
        thresholds: the score, one or K, from which on an image is called positive.

    Returns:
        names of groups to their values; a group of which no value is known is absent.

    Raises:
        BundleError: as :class:`cleft_bundle.metrics.ClassificationMetrics` does.
    """
    patients = predictions.patient_numbers()
    whole = ClassificationMetrics(predictions, metrics, thresholds)
    once = np.ones((1, len(predictions)), dtype=np.uint8)
    defined = [name for name, value in whole(once).items() if not np.isnan(value[0])]
    results = {}
    for group, column in predictions.groups.items():
        values = np.array(["" if value is None else str(value) for value in column])
        if names := sorted(set(values) - {""}):
            rows = {name: np.flatnonzero(values == name) for name in names}
            statistic = _ByValue(predictions, rows, metrics, thresholds)
            resampled = resample(statistic, patients, resamples, seed, f"subgroups by {group}")
            whole.average_over(statistic.common)
            overall = {name: float(value[0]) for name, value in whole(once).items()}
            n_unknown = int((values == "").sum())
            results[group] = _compare(resampled, names, defined, confidence, statistic.classes, overall, n_unknown)
    return results


class _ByValue:
    """The metrics of several parts of the images, named ``<value>/<metric>``; means go over the same classes."""

    def __init__(
        self,
        predictions: Predictions,
        rows: dict[str, np.ndarray],
        metrics: Sequence[str],
        thresholds: float | Sequence[float],
    ) -> None:
        self.rows = rows
        self.parts = {
            name: ClassificationMetrics(predictions.select(own), metrics, thresholds) for name, own in rows.items()
        }
        self.common = self._common_classes()
        for part in self.parts.values():
            part.average_over({name: chosen & part.averaged[name] for name, chosen in self.common.items()})
        names = np.array(predictions.class_names)
        self.classes = {
            name: names[chosen].tolist() for name, chosen in self.common.items() if len(chosen) == len(names)
        }

    def _common_classes(self) -> dict[str, np.ndarray]:
        """For each metric the classes for which it is defined in all parts of which the mean has an interval."""
        parts = list(self.parts.values())
        support = [{mean_metric(name): basis.support for name, basis in part.basis().items() if basis.classes}
                   for part in parts]  # fmt: skip
        common = {}
        for name in parts[0].averaged:
            large = [part for part, own in zip(parts, support, strict=True) if own.get(name, 0.0) >= MIN_SUPPORT]
            common[name] = common_classes(large or parts)[name]
        return common

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            f"{value}/{name}": estimates
            for value, part in self.parts.items()
            for name, estimates in part(weights[:, self.rows[value]]).items()
        }

    def basis(self) -> dict[str, Basis]:
        return {f"{value}/{name}": basis for value, part in self.parts.items() for name, basis in part.basis().items()}


def mean_metric(name: str) -> str:
    """The metric whose classes a mean goes over: ``auroc`` of ``auroc_macro``; the mean sensitivity's is that."""
    return "sensitivity" if name == "balanced_accuracy" else name.removesuffix("_macro")


def _compare(
    resampled: Resampled,
    values: Sequence[str],
    metrics: Sequence[str],
    confidence: float,
    classes: dict[str, list[str]],
    overall: dict[str, float],
    n_unknown: int,
) -> Subgroups:
    intervals = {
        value: {metric: resampled.interval(f"{value}/{metric}", confidence) for metric in metrics} for value in values
    }
    means = [metric for metric in metrics if any(resampled.basis[f"{value}/{metric}"].classes for value in values)]
    over = {metric: classes[mean_metric(metric)] for metric in means}
    gaps, too_small = {}, {}
    for metric in metrics:
        ranked = [value for value in values if intervals[value][metric].is_known]
        if metric in over:
            ranked = [value for value in ranked if list(intervals[value][metric].classes) == over[metric]]
        if left_out := [value for value in values if value not in ranked]:
            too_small[metric] = left_out
        if len(ranked) > 1:
            gaps[metric] = _gap(resampled, ranked, metric, confidence)
    whole = {metric: overall[metric] for metric in means}
    return Subgroups(intervals, gaps, too_small, n_unknown, over, whole)


def _gap(resampled: Resampled, values: list[str], metric: str, confidence: float) -> Gap:
    """The gap of a metric between values that all have an interval."""
    estimate = {value: resampled.values[f"{value}/{metric}"] for value in values}
    kind = metric.partition("/")[0].removesuffix("_macro")
    if kind == OBSERVED_EXPECTED:  # the best is next to 1, too many as bad as too few
        ordered = sorted(values, key=lambda value: abs(np.log(max(estimate[value], _TINY))))
    else:
        ordered = sorted(values, key=lambda value: estimate[value], reverse=kind not in CALIBRATION)
    best, worst = ordered[0], ordered[-1]
    high, low = (best, worst) if estimate[best] >= estimate[worst] else (worst, best)
    distance = difference(resampled, f"{high}/{metric}", f"{low}/{metric}", confidence)
    pairs = len(values) * (len(values) - 1) // 2
    return Gap(best, worst, distance, min(1.0, pairs * distance.p_value))
