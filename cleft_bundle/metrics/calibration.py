"""Calibration: whether probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.predictions import Predictions

BINS = 15
HIGHEST = "highest"


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
