"""AUROC and average precision of one class under many weightings of the images, sorted once."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array  # type: ignore[import-untyped]  # scipy ships no type information


class Ranking:
    """The images of one class in the order of their scores.

    Args:
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        steps, step = np.unique(scores[positive], return_inverse=True)  # rising scores of positives
        # negatives below the first step, at it, between it and the second, and so on
        place = np.searchsorted(steps, scores[negative], side="left")
        place = place + np.searchsorted(steps, scores[negative], side="right")
        self.steps = len(steps)
        rows, images = np.concatenate([step, self.steps + place]), np.concatenate([positive, negative])
        ones, shape = np.ones(len(rows), dtype=np.int32), (3 * self.steps + 1, len(scores))
        self.sums = csr_array((ones, (rows, images)), shape=shape)

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute both metrics, ties counted half in AUROC and taken together in average precision.

        Args:
            weights: int32 [N, R], how often each image counts in each of R samples.

        Returns:
            AUROC and average precision [R] in 0..1, NaN where a sample has no positive or no negative.

        Source: Fawcett, "An introduction to ROC analysis", 2006; average precision as scikit-learn defines it.
        """
        counts = np.ascontiguousarray((self.sums @ weights).T)  # [R, steps]
        own, negatives = counts[:, : self.steps], counts[:, self.steps :].cumsum(axis=1, dtype=np.int32)
        below, up_to, n_negative = negatives[:, :-1:2], negatives[:, 1::2], negatives[:, -1]
        lower = own.cumsum(axis=1, dtype=np.int32) - own  # positives of lower scores
        n_positive = own.sum(axis=1, dtype=np.int32)
        true, false = n_positive[:, None] - lower, n_negative[:, None] - below
        precision = true / np.maximum(true + false, 1)
        own = own.astype(np.float64)
        won = np.einsum("rs,rs->r", own, (below + up_to).astype(np.float64)) / 2
        auroc = ratio(won, n_positive.astype(np.float64) * n_negative)
        average = ratio(np.einsum("rs,rs->r", own, precision), n_positive)
        return auroc, np.where(n_negative > 0, average, np.nan)


def ratio(part: np.ndarray, whole: np.ndarray, empty: float = float("nan")) -> np.ndarray:
    """Divide where the divisor is positive; `empty` elsewhere."""
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
