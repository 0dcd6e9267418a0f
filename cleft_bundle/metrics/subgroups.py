"""Every metric for every kind of patient and image, and how far the kinds lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cleft_bundle.metrics.classification import CALIBRATION, METRICS, ClassificationMetrics
from cleft_bundle.metrics.intervals import Basis, Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, Resampled, difference, resample


@dataclass(frozen=True)
class Gap:
    """The best and the worst value of a group in one metric.

    Args:
        best: value of the group with the best figure.
        worst: value of the group with the worst figure.
        difference: the larger figure minus the smaller one, both drawn from the same resamples. Since best and worst
            are picked from these very images, it tends to be too large.
    """

    best: str
    worst: str
    difference: Difference


@dataclass(frozen=True)
class Subgroups:
    """The metrics by the values of one group, such as ``sex``.

    Args:
        intervals: value to the name of a metric to its interval. Every metric that is defined for all images is there;
            it is NaN where it is not defined for this value, and its bounds are where too few patients stand behind it.
        gaps: name of a metric to best and worst value, where two values or more have an interval.
        too_small: name of a metric to the values that have no interval and are left out of ``gaps``.
        n_unknown: number of images whose value is not known.
    """

    intervals: dict[str, dict[str, Interval]]
    gaps: dict[str, Gap]
    too_small: dict[str, list[str]]
    n_unknown: int


def subgroup_metrics(
    predictions: Predictions,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    thresholds: float | Sequence[float] = 0.5,
) -> dict[str, Subgroups]:
    """Compute metrics for each value of each group of some predictions, with intervals by resampling patients.

    An interval needs :data:`cleft_bundle.metrics.MIN_SUPPORT` patients on the rarer side that the metric looks at: with
    and without the finding for AUROC, average precision and balanced accuracy, with it for sensitivity and F1, without
    it for specificity, called positive for precision, and any for the others.

    Args:
        predictions: of N images, with groups.
        metrics: some of :data:`cleft_bundle.metrics.METRICS`.
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
    whole = ClassificationMetrics(predictions, metrics, thresholds)(np.ones((1, len(predictions)), dtype=np.uint8))
    defined = [name for name, value in whole.items() if not np.isnan(value[0])]
    results = {}
    for group, column in predictions.groups.items():
        values = np.array(["" if value is None else str(value) for value in column])
        if names := sorted(set(values) - {""}):
            rows = {name: np.flatnonzero(values == name) for name in names}
            statistic = _ByValue(predictions, rows, metrics, thresholds)
            resampled = resample(statistic, patients, resamples, seed, f"subgroups by {group}")
            results[group] = _compare(resampled, names, defined, confidence, int((values == "").sum()))
    return results


class _ByValue:
    """The metrics of several parts of the images, named ``<value>/<metric>``."""

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

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            f"{value}/{name}": figures
            for value, part in self.parts.items()
            for name, figures in part(weights[:, self.rows[value]]).items()
        }

    def basis(self) -> dict[str, Basis]:
        return {f"{value}/{name}": basis for value, part in self.parts.items() for name, basis in part.basis().items()}


def _compare(
    resampled: Resampled, values: Sequence[str], metrics: Sequence[str], confidence: float, n_unknown: int
) -> Subgroups:
    intervals = {
        value: {metric: resampled.interval(f"{value}/{metric}", confidence) for metric in metrics} for value in values
    }
    gaps, too_small = {}, {}
    for metric in metrics:
        ranked = [value for value in values if intervals[value][metric].is_known]
        if left_out := [value for value in values if value not in ranked]:
            too_small[metric] = left_out
        if len(ranked) > 1:
            ranked.sort(key=lambda value: intervals[value][metric].value)
            low, high = ranked[0], ranked[-1]
            distance = difference(resampled, f"{high}/{metric}", f"{low}/{metric}", confidence)
            low_is_good = metric.split("/")[0].removesuffix("_macro") in CALIBRATION
            gaps[metric] = Gap(low, high, distance) if low_is_good else Gap(high, low, distance)
    return Subgroups(intervals, gaps, too_small, n_unknown)
