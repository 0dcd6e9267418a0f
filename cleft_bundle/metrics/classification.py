"""Metrics of classification, of the images as they are or under many weightings of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics.calibration import BINS, bin_of, calibrated_columns
from cleft_bundle.metrics.intervals import Basis
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.ranking import Ranking, ratio

RANKED = ("auroc", "average_precision")
THRESHOLDED = ("f1", "precision", "sensitivity", "specificity", "accuracy", "balanced_accuracy")
CALIBRATION = ("brier", "ece")
METRICS = (*RANKED, *THRESHOLDED, *CALIBRATION)
OBSERVED_EXPECTED = "observed_expected"
ALL_METRICS = (*METRICS, OBSERVED_EXPECTED)
OF_ALL_CLASSES = (
    "accuracy",
    "balanced_accuracy",
    *CALIBRATION,
    OBSERVED_EXPECTED,
)  # one number each where the task is multiclass
_LARGEST = {"brier": 2.0, OBSERVED_EXPECTED: None}  # of a multiclass task; the others lie below 1


class ClassificationMetrics:
    """The metrics of some predictions as a function of weights of the images; sorts and counts once.

    For ``multilabel`` each metric is ``<metric>/<class>`` for every class, and ``<metric>_macro``, the mean over
    classes. These are fixed, by default those for which the metric is defined for the images as they are: a mean over
    fewer of them is another figure, so that a weighting which leaves one undefined leaves the mean undefined. For
    ``multiclass`` the class with the highest score is the one called; ``accuracy``, ``balanced_accuracy`` (the mean
    sensitivity of such fixed classes), ``brier`` (squared distance of the probabilities to the truth, 0..2), ``ece``
    (of the highest probability) and ``observed_expected`` (of it, too) are one number each, over the images of exactly
    one class (:mod:`cleft_bundle.data.usable_labels`); an image of none counts only for the AUROC and average precision
    of the classes that it is known not to have, and one of several for nothing. ``observed_expected`` is the number of
    images with the class as a share of that which the probabilities add up to, from 0 without a bound, and has no mean.
    All other values are in 0..1.

    Args:
        predictions: of N images.
        metrics: some of :data:`METRICS`, or ``observed_expected``.
        thresholds: the score, one or K, from which on an image is called positive; ``multiclass`` takes no notice.

    Raises:
        BundleError: an unknown metric; a number of thresholds that is not K; scores that are no probabilities where
            ``brier``, ``ece`` or ``observed_expected`` is asked for.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950; Guo et al., "On calibration of
    modern neural networks", ICML 2017 (ECE, bins of equal width).
    """

    def __init__(
        self, predictions: Predictions, metrics: Sequence[str] = METRICS, thresholds: float | Sequence[float] = 0.5
    ) -> None:
        for name in metrics:
            require_one_of("metrics", name, ALL_METRICS)
        self.metrics = [name for name in ALL_METRICS if name in metrics]
        self.predictions = predictions
        self.single = predictions.task == "multiclass"
        self.truth, self.called = _truth_and_calls(predictions, thresholds)
        self.rankings: list[Ranking] = []
        if set(metrics) & set(RANKED):
            columns = zip(predictions.scores.T, predictions.labels.T, strict=True)
            self.rankings = [Ranking(scores, labels) for scores, labels in columns]
        present, absent = self.truth == 1, self.truth == 0
        counts = [self.called & present, self.called & absent, present, absent]
        self.counts = np.hstack(counts).astype(np.float32)  # exact up to 16 million images, and fast
        needs_sums = set(metrics) & {*CALIBRATION, OBSERVED_EXPECTED}
        self.calibration = _CalibrationSums(predictions, self.truth) if needs_sums else None
        self.averaged: dict[str, np.ndarray] = {}
        for name, values in self._by_class(np.ones((1, len(predictions)), dtype=np.uint8)).items():
            self.averaged[name] = ~np.isnan(values[0])

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics under R weightings.

        Args:
            weights: uint8 [R, N], how often each image counts.

        Returns:
            names to [R] values, NaN where a metric is not defined: nothing to divide by, or for AUROC, average
            precision and a class's balanced accuracy one side missing; a mean where any of its classes is not.
        """
        by_class = self._by_class(weights)
        if self.single:
            mean = _mean_of(by_class["sensitivity"], self.averaged["sensitivity"])
            by_class["balanced_accuracy"] = mean[:, None]
        values: dict[str, np.ndarray] = {}
        for name in self.metrics:
            if self._is_one_number(name):
                values[name] = by_class[name][:, 0]
                continue
            names = [f"{name}/{label}" for label in self.predictions.class_names]
            values |= dict(zip(names, by_class[name].T, strict=True))
            if name != OBSERVED_EXPECTED:
                values[f"{name}_macro"] = _mean_of(by_class[name], self.averaged[name])
        return values

    def _by_class(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics to values [R, K], or [R, 1] of those that are one number, but for a multiclass balanced accuracy."""
        by_class: dict[str, np.ndarray] = {}
        if self.rankings:
            columns = np.ascontiguousarray(weights.T, dtype=np.int32)
            ranked = np.array([rank(columns) for rank in self.rankings])
            by_class.update(zip(RANKED, np.moveaxis(ranked, 0, -1), strict=True))
        counts = (weights.astype(np.float32) @ self.counts).astype(np.float64)
        true, false, positive, negative = np.split(counts, 4, axis=1)
        sensitivity, specificity = ratio(true, positive), ratio(negative - false, negative)
        correct, known = true + negative - false, positive + negative
        by_class |= {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": ratio(true, true + false),
            "f1": ratio(2 * true, true + false + positive),
            "accuracy": ratio(correct, known),
            "balanced_accuracy": (sensitivity + specificity) / 2,
        }
        if self.single:
            by_class["accuracy"] = ratio(true.sum(axis=1), positive.sum(axis=1))[:, None]
        if self.calibration is not None:
            by_class |= self.calibration(weights)
        return by_class

    def average_over(self, classes: Mapping[str, np.ndarray]) -> None:
        """Let means go over other classes.

        Args:
            classes: metrics to bool [K].
        """
        self.averaged |= classes

    def basis(self) -> dict[str, Basis]:
        """Tell what each metric rests on, by the names that :meth:`__call__` gives."""
        patient = self.predictions.patient_numbers()
        class_names = self.predictions.class_names
        basis: dict[str, Basis] = {}
        for name in self.metrics:
            known = ~np.isnan(self.predictions.labels if name in RANKED else self.truth)
            everywhere = _basis(patient, known.any(axis=1))
            if self._is_one_number(name) and name != "balanced_accuracy":
                basis[name] = replace(everywhere, largest=_LARGEST.get(name, 1.0))
                continue
            support = np.array([self._support(name, patient, index) for index in range(known.shape[1])])
            chosen = self.averaged["sensitivity" if self._is_one_number(name) else name]
            rarer = support[chosen]
            mean = float(1 / np.mean(1 / rarer)) if rarer.all() and len(rarer) else 0.0
            classes = tuple(label for label, one in zip(class_names, chosen, strict=True) if one)
            over = replace(_basis(patient, known[:, chosen].any(axis=1)), support=mean, classes=classes)
            if self._is_one_number(name):
                basis[name] = over
                continue
            if name != OBSERVED_EXPECTED:
                basis[f"{name}_macro"] = over
            for label, column, own in zip(class_names, known.T, support, strict=True):
                largest = None if name == OBSERVED_EXPECTED else 1.0
                basis[f"{name}/{label}"] = replace(_basis(patient, column), support=float(own), largest=largest)
        return basis

    def _is_one_number(self, name: str) -> bool:
        return self.single and name in OF_ALL_CLASSES

    def _support(self, name: str, patient: np.ndarray, index: int) -> int:
        """The patients of the rarer side of a class, or of the only side that a metric looks at."""
        truth = (self.predictions.labels if name in RANKED else self.truth)[:, index]
        positive, negative = (_count(patient[truth == side]) for side in (1, 0))
        if name in ("sensitivity", "f1") or (self.single and name == "balanced_accuracy"):
            return positive
        if name == "specificity":
            return negative
        if name == "precision":
            return _count(patient[self.called[:, index] & ~np.isnan(truth)])
        if name == OBSERVED_EXPECTED:
            return positive
        return min(positive, negative) if name in (*RANKED, "balanced_accuracy") else positive + negative


class _CalibrationSums:
    """Brier score, expected calibration error and observed to expected, as a function of weights."""

    def __init__(self, predictions: Predictions, truth: np.ndarray) -> None:
        columns = list(calibrated_columns(predictions).values())
        squared = (predictions.scores - truth) ** 2
        errors = squared.sum(axis=1, keepdims=True) if predictions.task == "multiclass" else squared
        probability, outcome = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
        known = ~np.isnan(outcome)
        image, column = np.nonzero(known)
        excess = (probability - outcome)[known]
        shape = (probability.shape[1] * BINS, len(probability))
        self.bins = csr_array((excess, (column * BINS + bin_of(probability[known]), image)), shape=shape)
        self.others = np.hstack([np.nan_to_num(part) for part in (errors, outcome, np.where(known, probability, 0.0))])
        self.others = np.hstack([self.others, known])

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Values [R, K or 1] under weights uint8 [R, N]."""
        times = weights.astype(np.float64)
        errors, observed, expected, known = np.split(times @ self.others, 4, axis=1)
        excess = np.abs(self.bins @ np.ascontiguousarray(times.T))
        excess = excess.reshape(-1, BINS, len(weights)).sum(axis=1).T
        return {
            "brier": ratio(errors, known),
            "ece": ratio(excess, known),
            OBSERVED_EXPECTED: ratio(observed, expected),
        }


def common_classes(parts: Sequence[ClassificationMetrics]) -> dict[str, np.ndarray]:
    """Find the classes for which each metric is defined in all parts: metrics to bool [K]."""
    return {name: np.logical_and.reduce([part.averaged[name] for part in parts]) for name in parts[0].averaged}


def average_over_common(parts: Sequence[ClassificationMetrics]) -> None:
    """Let means that are to be compared go over the same classes, those for which a metric is defined in all parts."""
    common = common_classes(parts)
    for part in parts:
        part.average_over(common)


def classification_metrics(
    predictions: Predictions, thresholds: float | Sequence[float] = 0.5, metrics: Sequence[str] = METRICS
) -> dict[str, float]:
    """Compute the metrics of some predictions, see :class:`ClassificationMetrics` for their names.

    Args:
        predictions: of N images.
        thresholds: the score, one or K, from which on an image is called positive; ``multiclass`` takes no notice.
        metrics: some of :data:`METRICS`.

    Returns:
        names to values; a metric that is not defined is absent.

    Raises:
        BundleError: as :class:`ClassificationMetrics` does.

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
        >>> classification_metrics(predictions, metrics=["auroc"])
        {'auroc/edema': 1.0, 'auroc/mass': 1.0, 'auroc_macro': 1.0}
    """
    values = ClassificationMetrics(predictions, metrics, thresholds)(np.ones((1, len(predictions)), dtype=np.uint8))
    return {name: float(value[0]) for name, value in values.items() if not np.isnan(value[0])}


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count images by class present (rows) and class with the highest score (columns).

    An image with several findings counts once in the row of each.

    Args:
        scores: float array [N, K].
        labels: float array [N, K] of 1, 0 and NaN (unknown, counted as absent).

    Returns:
        int array [K, K].

    Examples:
        >>> import numpy as np
        >>> confusion_matrix(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), np.array([[1, 0], [0, 1], [0, 1]]))
        array([[1, 0],
               [1, 1]])
    """
    present = (np.nan_to_num(labels) > 0.5).astype(int)
    return present.T @ np.eye(scores.shape[1], dtype=int)[scores.argmax(axis=1)]


def binary_confusion(predictions: Predictions, thresholds: float | Sequence[float] = 0.5) -> np.ndarray:
    """Count the images of each class by truth (absent, present) and call (negative, positive).

    Returns:
        int array [K, 2, 2]; unknown labels are left out.
    """
    truth, called = _truth_and_calls(predictions, thresholds)
    cells = [[((truth == row) & (called == column)).sum(axis=0) for column in (0, 1)] for row in (0, 1)]
    return np.moveaxis(np.array(cells), -1, 0)


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean [R] of some of the columns of [R, K]; NaN where one of them is, and where there is none."""
    return values[:, chosen].mean(axis=1) if chosen.any() else np.full(len(values), np.nan)


def _truth_and_calls(predictions: Predictions, thresholds: float | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """What counts as true (float [N, K], NaN where unknown) and what is called positive (bool [N, K])."""
    labels, scores = predictions.labels, predictions.scores
    if predictions.task == "multiclass":
        known = (labels == 1).any(axis=1, keepdims=True)
        return np.where(known, labels == 1, np.nan), np.eye(labels.shape[1], dtype=bool)[scores.argmax(axis=1)]
    limits = np.asarray(thresholds, dtype=float)
    if limits.ndim and limits.shape != (labels.shape[1],):
        raise BundleError(f"thresholds: expected one number or {labels.shape[1]}, one per class, got {thresholds}")
    return labels, scores >= limits


def _basis(patient: np.ndarray, rows: np.ndarray) -> Basis:
    count = _count(patient[rows])
    return Basis(int(rows.sum()), count, count)


def _count(numbers: np.ndarray) -> int:
    """How many different numbers there are; they begin at 0."""
    return int(np.count_nonzero(np.bincount(numbers)))
