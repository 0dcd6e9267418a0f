"""AUROC and average precision of one class under many weightings of the images, sorted once."""

from __future__ import annotations

import numpy as np


class Ranking:
    """The images of one class in the order of their scores.

    Args:
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        self.positive = positive[np.argsort(-scores[positive], kind="stable")]  # falling
        self.negative = negative[np.argsort(scores[negative], kind="stable")]  # rising
        own, other = scores[self.positive], scores[self.negative]
        self.below = np.searchsorted(other, own, side="left")  # negatives below each positive
        self.up_to = np.searchsorted(other, own, side="right")  # and those that tie with it
        self.last = np.searchsorted(-own, -own, side="right")  # positives that are as high or higher

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute both metrics, ties counted half in AUROC and taken together in average precision.

        Args:
            weights: uint8 [R, N], how often each image counts in each of R samples.

        Returns:
            AUROC and average precision [R] in 0..1, NaN where a sample has no positive or no negative.

        Source: Fawcett, "An introduction to ROC analysis", 2006; average precision as scikit-learn defines it.
        """
        own = np.take(weights, self.positive, axis=1).astype(np.float64)
        negatives, positives = _running_sum(weights, self.negative), _running_sum(weights, self.positive)
        below, up_to, true = negatives[:, self.below], negatives[:, self.up_to], positives[:, self.last]
        n_positive, n_negative = positives[:, -1].astype(np.float64), negatives[:, -1]
        precision = ratio(true, true + n_negative[:, None] - below, empty=0.0)
        auroc = ratio(np.einsum("rn,rn->r", own, (below + up_to).astype(np.float64)) / 2, n_positive * n_negative)
        average = ratio(np.einsum("rn,rn->r", own, precision), n_positive)
        return auroc, np.where(n_negative > 0, average, np.nan)


def _running_sum(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... len(order) weights, int32 [R, len(order) + 1]."""
    total = np.zeros((len(weights), len(order) + 1), dtype=np.int32)
    np.take(weights, order, axis=1).cumsum(axis=1, dtype=np.int32, out=total[:, 1:])
    return total


def ratio(part: np.ndarray, whole: np.ndarray, empty: float = float("nan")) -> np.ndarray:
    """Divide where the divisor is positive; `empty` elsewhere."""
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
