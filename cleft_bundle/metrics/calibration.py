"""Whether probabilities mean what they say, and how to make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.special import expit, log_softmax, softmax  # type: ignore[import-untyped]

from cleft_bundle.data.usable_labels import exclusive, usable_rows
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.networks.classifier import Task

BINS = 15
HIGHEST = "highest"
_TEMPERATURES = (0.01, 100.0)
_LARGEST_BIAS = 30.0


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: of the images in each bin of probability, how often the class is there.

    Args:
        probability: mean probability of the images in each bin, [bins], NaN where the bin is empty.
        frequency: share of them that have the class, [bins], or NaN.
        count: number of them, int [bins].
    """

    probability: np.ndarray
    frequency: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """What turns logits into calibrated probabilities: ``logits / temperature + bias``, then softmax or sigmoid.

    Args:
        temperature: above 1 makes probabilities less extreme.
        bias: added to the logit of each class, [K].
        task: ``multiclass`` (softmax) or ``multilabel`` (sigmoid).
    """

    temperature: float
    bias: Sequence[float]
    task: Task

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities [N, K] of logits [N, K]."""
        adjusted = np.asarray(logits, dtype=np.float64) / self.temperature + np.asarray(self.bias)
        return softmax(adjusted, axis=1) if self.task == "multiclass" else expit(adjusted)


def bin_of(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the bin of equal width that holds each probability; bins are open below and closed above."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities, side="left")


def calibrated_columns(predictions: Predictions) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the probabilities that calibration is about, and what came true.

    Returns:
        for ``multilabel`` the name of each class to its probabilities [N] and labels [N]; for ``multiclass``
        :data:`HIGHEST` to the highest probability of each image and whether its class is the true one, NaN where that
        is unknown.

    Raises:
        BundleError: where scores are no probabilities.
    """
    scores, labels = predictions.scores, predictions.labels
    if scores.min() < 0 or scores.max() > 1:
        raise BundleError(f"calibration needs probabilities, got scores from {scores.min():.3g} to {scores.max():.3g}")
    if predictions.task == "multilabel":
        return dict(zip(predictions.class_names, zip(scores.T, labels.T, strict=True), strict=True))
    hit = np.take_along_axis(labels, scores.argmax(axis=1)[:, None], axis=1)[:, 0] == 1
    return {HIGHEST: (scores.max(axis=1), np.where((labels == 1).any(axis=1), hit, np.nan))}


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Compute a reliability diagram of one class.

    Args:
        probabilities: [N] in 0..1.
        labels: [N] of 1, 0 and NaN (unknown, left out).
        bins: number of bins of equal width.
    """
    known = ~np.isnan(labels)
    place = bin_of(probabilities[known], bins)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=part[known], minlength=bins) for part in (probabilities, labels)]
    means = [np.divide(part, count, out=np.full(bins, np.nan), where=count > 0) for part in sums]
    return Reliability(means[0], means[1], count)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, task: Task) -> Calibration:
    """Fit the temperature that makes validation labels most likely; it changes no ranking and no highest class.

    Args:
        logits: [N, K], before softmax or sigmoid.
        labels: [N, K] of 1, 0 and NaN (unknown, left out).
        task: ``multiclass`` or ``multilabel``.

    Returns:
        a temperature in 0.01..100 and biases of 0.

    Raises:
        BundleError: where no label is known, or a logit is not finite.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    return _fit(logits, labels, task, biased=False)


def fit_bias(logits: np.ndarray, labels: np.ndarray, task: Task) -> Calibration:
    """Fit a temperature and a bias for each class together, see :func:`fit_temperature`.

    Within a class the ranking stays; a bias moves its probabilities to the frequency of the class in validation. A
    class without both sides there keeps a bias of 0.

    Source: Platt, 1999; Guo et al., ICML 2017 (one temperature for all classes, so that few parameters are fitted).
    """
    return _fit(logits, labels, task, biased=True)


def _fit(logits: np.ndarray, labels: np.ndarray, task: Task, biased: bool) -> Calibration:
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise BundleError(
            f"calibration: {(~np.isfinite(logits)).any(axis=1).sum()} images have logits that are not finite"
        )
    if task == "multiclass":
        rows = usable_rows(labels, task)
        logits, labels = logits[rows], exclusive(labels[rows])
    known = ~np.isnan(labels)
    if not known.any():
        raise BundleError("calibration: expected known labels to fit on, found none")
    truth, count = np.nan_to_num(labels), logits.shape[1]
    free = biased & (labels == 1).any(axis=0) & (labels == 0).any(axis=0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log-likelihood and gradient of the logarithm of 1 / temperature and of the biases."""
        inverse = np.exp(parameters[0])
        adjusted = logits * inverse + parameters[1:]
        if task == "multiclass":
            total, excess = -(truth * log_softmax(adjusted, axis=1)).sum(), softmax(adjusted, axis=1) - truth
        else:
            total = ((np.logaddexp(0, adjusted) - truth * adjusted) * known).sum()
            excess = (expit(adjusted) - truth) * known
        gradient = np.concatenate([[(excess * logits).sum() * inverse], excess.sum(axis=0)])
        return total / len(logits), gradient / len(logits)

    limits = [
        tuple(-np.log(_TEMPERATURES[::-1])),
        *((-_LARGEST_BIAS, _LARGEST_BIAS) if one else (0, 0) for one in free),
    ]
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    fitted = minimize(loss, np.zeros(1 + count), jac=True, method="L-BFGS-B", bounds=limits, options=options).x
    bias = fitted[1:]
    if task == "multiclass" and free.all():
        bias = bias - bias.mean()  # a softmax does not see what is added to all
    return Calibration(float(np.exp(-fitted[0])), [float(value) for value in bias], task)
