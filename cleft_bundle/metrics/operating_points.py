"""Operating points on test, by thresholds that were chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.classification import ClassificationMetrics, binary_confusion
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Basis, Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.ranking import ratio
from cleft_bundle.metrics.resampling import Resampled, resample

_ESTIMATES = ("sensitivity", "specificity", "ppv", "npv")
_RATIOS = ("lr_positive", "lr_negative")


@dataclass(frozen=True)
class OperatingPoint:
    """Effect of a threshold on the images of a test set; a figure without a definition is NaN.

    Args:
        threshold: the score from which on an image is called positive.
        prevalence: share of positives that PPV and NPV are stated for, in 0..1.
        sensitivity: with its interval, as all that follow.
        specificity: share of the negatives below the threshold.
        ppv: share of positives among those called positive, at that prevalence.
        npv: share of negatives among those called negative, at that prevalence.
        lr_positive: sensitivity by the share of the negatives that are called positive; NaN where none is, for then it
            has no bound.
        lr_negative: share of the positives that are called negative by the specificity; NaN where that is 0.
        tp: number of images with the finding that are called positive; unknown labels do not count.
        fp: number without it that are called positive.
        fn: number with it that are called negative.
        tn: number without it that are called negative.
    """

    threshold: float
    prevalence: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    lr_positive: Interval
    lr_negative: Interval
    tp: int
    fp: int
    fn: int
    tn: int


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
        names of the classes that have a threshold to what it does. Likelihood ratios have the interval of their
        logarithm's standard deviation over the resamples, with half an image added to each cell (Simel, Samsa and
        Matchar, "Likelihood ratios with confidence", 1991).

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
    levels = [thresholds[name] for name in names]
    statistic = _PredictiveValues(chosen, levels, shares)
    resampled = resample(statistic, chosen.patient_numbers(), resamples, seed, "operating points")
    cells = binary_confusion(chosen, levels)
    points = {}
    for name, share, (absent, present) in zip(names, shares, cells.tolist(), strict=True):
        estimates = {estimate: resampled.interval(f"{estimate}/{name}", confidence) for estimate in _ESTIMATES}
        estimates |= {estimate: _ratio_interval(resampled, f"{estimate}/{name}", confidence) for estimate in _RATIOS}
        points[name] = OperatingPoint(
            thresholds[name],
            float(share),
            **estimates,
            tp=present[1],
            fp=absent[1],
            fn=present[0],
            tn=absent[0],
        )
    return points


def _ratio_interval(resampled: Resampled, name: str, confidence: float) -> Interval:
    """A likelihood ratio with the interval of its logarithm, which is kept under the name and ``log``."""
    basis, value = resampled.basis[name], resampled.values.get(name, float("nan"))
    if np.isnan(value) or basis.support < MIN_SUPPORT:
        return basis.interval(value)
    draws = resampled.draws[f"{name}/log"]
    deviation = np.nanstd(draws) * np.sqrt(basis.support / (basis.support - 1))
    half = float(t.ppf((1 + confidence) / 2, basis.support - 1) * deviation)
    middle = resampled.values[f"{name}/log"]
    # half an image moves the middle: what was counted lies within
    return basis.interval(value, min(value, float(np.exp(middle - half))), max(value, float(np.exp(middle + half))))


class _PredictiveValues:
    """Sensitivity and specificity, what Bayes' rule makes of them at a prevalence, and their likelihood ratios."""

    def __init__(self, predictions: Predictions, thresholds: list[float], prevalence: np.ndarray) -> None:
        self.counts = ClassificationMetrics(predictions, _ESTIMATES[:2], thresholds)
        self.prevalence = dict(zip(predictions.class_names, prevalence, strict=True))
        self.sides = [(predictions.labels == side).sum(axis=0) for side in (1, 0)]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        values = self.counts(weights)
        estimates: dict[str, np.ndarray] = {}
        for number, (name, share) in enumerate(self.prevalence.items()):
            sensitivity, specificity = (values[f"{estimate}/{name}"] for estimate in _ESTIMATES[:2])
            true_positive, false_positive = sensitivity * share, (1 - specificity) * (1 - share)
            true_negative, false_negative = specificity * (1 - share), (1 - sensitivity) * share
            ppv = ratio(true_positive, true_positive + false_positive)
            npv = ratio(true_negative, true_negative + false_negative)
            estimates |= {
                f"{estimate}/{name}": value
                for estimate, value in zip(_ESTIMATES, (sensitivity, specificity, ppv, npv), strict=True)
            }
            shares = (sensitivity, 1 - specificity), (1 - sensitivity, specificity)
            for estimate, (hits, alarms) in zip(_RATIOS, shares, strict=True):
                estimates[f"{estimate}/{name}"] = ratio(hits, alarms)
                positives, negatives = (side[number] for side in self.sides)
                smooth = (hits * positives + 0.5) / (positives + 1), (alarms * negatives + 0.5) / (negatives + 1)
                estimates[f"{estimate}/{name}/log"] = np.log(smooth[0] / smooth[1])
        return estimates

    def basis(self) -> dict[str, Basis]:
        basis = self.counts.basis()
        for name in self.prevalence:
            both = [basis[f"{estimate}/{name}"] for estimate in _ESTIMATES[:2]]
            rarer = replace(both[0], support=min(side.support for side in both))
            images, patients = (max(getattr(side, key) for side in both) for key in ("n_images", "n_patients"))
            unbounded = Basis(images, patients, rarer.support, largest=None)
            basis |= {f"ppv/{name}": rarer, f"npv/{name}": rarer}
            basis |= {f"{estimate}/{name}": unbounded for estimate in _RATIOS}
        return basis
