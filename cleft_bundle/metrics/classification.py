"""Metrics of classification, of the images as they are or under many weightings of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics.calibration import BINS, bin_of, calibrated_columns
from cleft_bundle.metrics.intervals import Basis
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.ranking import Ranking, ratio

RANKED = ("auroc", "average_precision")
THRESHOLDED = ("f1", "precision", "sensitivity", "specificity", "accuracy", "balanced_accuracy")
CALIBRATION = ("brier", "ece")
METRICS = (*RANKED, *THRESHOLDED, *CALIBRATION)
OF_ALL_CLASSES = ("accuracy", "balanced_accuracy", "brier", "ece")  # one number each where the task is multiclass


class ClassificationMetrics:
    """The metrics of some predictions as a function of weights of the images; sorts and counts once.

    For ``multilabel`` each metric is ``<metric>/<class>`` for every class, and ``<metric>_macro``, the mean over the
    classes for which it is defined. For ``multiclass`` the class with the highest score is the one called;
    ``accuracy``, ``balanced_accuracy`` (the mean sensitivity), ``brier`` (squared distance of the probabilities to the
    truth, 0..2) and ``ece`` (of the highest probability) are one number each, over the images of exactly one class
    (:mod:`cleft_bundle.data.usable_labels`); an image of none counts only for the AUROC and average precision of the
    classes that it is known not to have, and one of several for nothing. All other values are in 0..1.

    Args:
        predictions: of N images.
        metrics: some of :data:`METRICS`.
        thresholds: the score, one or K, from which on an image is called positive; ``multiclass`` takes no notice.

    Raises:
        BundleError: an unknown metric; a number of thresholds that is not K; scores that are no probabilities where
            ``brier`` or ``ece`` is asked for.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950; Guo et al., "On calibration of
    modern neural networks", ICML 2017 (ECE, bins of equal width).
    """

    def __init__(
        self, predictions: Predictions, metrics: Sequence[str] = METRICS, thresholds: float | Sequence[float] = 0.5
    ) -> None:
        for name in metrics:
            require_one_of("metrics", name, METRICS)
        self.metrics = [name for name in METRICS if name in metrics]
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
        self.calibration = self._calibration_columns() if set(metrics) & set(CALIBRATION) else []

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics under R weightings.

        Args:
            weights: uint8 [R, N], how often each image counts.

        Returns:
            names to [R] values, NaN where a metric is not defined: nothing to divide by, or for AUROC, average
            precision and a class's balanced accuracy one side missing.
        """
        by_class: dict[str, np.ndarray] = {}
        if self.rankings:
            ranked = np.array([rank(weights) for rank in self.rankings])
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
        if self.calibration:
            times = weights.astype(np.float64)
            sums = np.stack([times @ part for part in self.calibration], axis=-1)
            by_class["brier"] = ratio(sums[:, -2], sums[:, -1])
            by_class["ece"] = ratio(np.abs(sums[:, :-2]).sum(axis=1), sums[:, -1])
        if self.single:
            by_class["accuracy"] = ratio(true.sum(axis=1), positive.sum(axis=1))[:, None]
            by_class["balanced_accuracy"] = mean_defined(sensitivity)[:, None]
        values: dict[str, np.ndarray] = {}
        for name in self.metrics:
            if self._is_one_number(name):
                values[name] = by_class[name][:, 0]
            else:
                names = [f"{name}/{label}" for label in self.predictions.class_names]
                values |= dict(zip(names, by_class[name].T, strict=True))
                values[f"{name}_macro"] = mean_defined(by_class[name])
        return values

    def basis(self) -> dict[str, Basis]:
        """Tell what each metric rests on, by the names that :meth:`__call__` gives."""
        patient = self.predictions.patient_numbers()
        basis: dict[str, Basis] = {}
        for name in self.metrics:
            known = ~np.isnan(self.predictions.labels if name in RANKED else self.truth)
            support = np.array([self._support(name, patient, index) for index in range(known.shape[1])])
            everywhere = _basis(patient, known.any(axis=1))
            if self._is_one_number(name) and name != "balanced_accuracy":
                basis[name] = replace(everywhere, largest=2.0 if name == "brier" else 1.0)
                continue
            mean = float(1 / np.mean(1 / support[support > 0])) if support.any() else 0.0
            basis["balanced_accuracy" if self._is_one_number(name) else f"{name}_macro"] = replace(
                everywhere, support=mean
            )
            if not self._is_one_number(name):
                for label, column, own in zip(self.predictions.class_names, known.T, support, strict=True):
                    basis[f"{name}/{label}"] = replace(_basis(patient, column), support=float(own))
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
        return min(positive, negative) if name in (*RANKED, "balanced_accuracy") else positive + negative

    def _calibration_columns(self) -> list[np.ndarray]:
        """For each calibrated column, sums of bins, squared errors and counts, see :func:`_calibration`."""
        columns = calibrated_columns(self.predictions)
        squared = (self.predictions.scores - self.truth) ** 2
        errors = squared.sum(axis=1)[None] if self.single else squared.T
        return [_calibration(*column, error) for column, error in zip(columns.values(), errors, strict=True)]


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


def mean_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    return ratio(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1))


def _truth_and_calls(predictions: Predictions, thresholds: float | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """What counts as true (float [N, K], NaN where unknown) and what is called positive (bool [N, K])."""
    labels, scores = predictions.labels, predictions.scores
    if predictions.task == "multiclass":
        known = (labels == 1).any(axis=1, keepdims=True)
        return np.where(known, labels == 1, np.nan), np.eye(labels.shape[1], dtype=bool)[scores.argmax(axis=1)]
    limits = np.asarray(thresholds, dtype=float)
    if limits.ndim and limits.shape != (labels.shape[1],):
        raise BundleError(f"thresholds: expected one number or {labels.shape[1]}, one a class, got {thresholds}")
    return labels, scores >= limits


def _calibration(probability: np.ndarray, outcome: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """Columns whose sums are the excess of probabilities over outcomes in each bin, the squared errors and the count.

    Args:
        probability: float [N].
        outcome: float [N] of 1, 0 and NaN.
        squared: squared errors, float [N].

    Returns:
        float [N, BINS + 2].
    """
    known = ~np.isnan(outcome)
    sums = np.zeros((len(outcome), BINS + 2))
    sums[known, bin_of(probability[known])] = (probability - outcome)[known]
    sums[:, -2], sums[:, -1] = np.nan_to_num(squared), known
    return sums


def _basis(patient: np.ndarray, rows: np.ndarray) -> Basis:
    count = _count(patient[rows])
    return Basis(int(rows.sum()), count, count)


def _count(numbers: np.ndarray) -> int:
    """How many different numbers there are; they begin at 0."""
    return int(np.count_nonzero(np.bincount(numbers)))
