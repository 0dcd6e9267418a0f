"""Conformal sets: the classes that cannot be ruled out, each kept for a chosen share of the images that have it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cleft_bundle.metrics.intervals import Basis, Interval, from_variance

#: Share of a class's images whose set is to have it, where nobody asks for another.
COVERAGE = 0.9


def conformal_limits(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], coverage: float = COVERAGE
) -> dict[str, float]:
    """Choose for each class the score from which on it belongs to an image's set.

    The limit is the highest score for which, of n images that have the class and a new one, so many are at or above it
    as ``coverage`` asks: split conformal prediction for each class by itself (Mondrian), of the smallest sets with
    this promise. It holds for new patients like those at hand, one image each.

    Args:
        scores: [N, K] of validation images.
        labels: [N, K] of 1, 0 and NaN.
        class_names: names of the K classes.
        coverage: share of images, in 0..1.

    Returns:
        names to limits; 0, where all sets have it, for a class with too few images (fewer than nine for 0.9).

    Source: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012.
    """
    limits = {}
    for name, column, known in zip(class_names, scores.T, labels.T, strict=True):
        having = np.sort(column[(known == 1) & np.isfinite(column)])
        below = math.floor((len(having) + 1) * (1 - coverage) + 1e-9)  # so many of n + 1 may be left out
        limits[name] = float(having[below - 1]) if below > 0 else 0.0
    return limits


def conformal_sets(scores: np.ndarray, class_names: Sequence[str], limits: Mapping[str, float]) -> np.ndarray:
    """Sets of images as a mask [N, K]: the classes at or above their limit; False where a score is NaN."""
    return scores >= np.array([limits[name] for name in class_names])


def set_coverage(
    sets: np.ndarray, labels: np.ndarray, patients: Sequence[object], confidence: float = 0.95
) -> list[Interval]:
    """Share of the images of each class whose set has it, with an interval over patients.

    Args:
        sets: mask [N, K].
        labels: [N, K] of 1, 0 and NaN.
        patients: [N], whose image each one is.
        confidence: of the intervals.

    Returns:
        K shares; NaN for a class without an image.
    """
    owners = np.unique([str(one) for one in patients], return_inverse=True)[1]
    return [
        _share(kept[known == 1], owners[known == 1], confidence) for kept, known in zip(sets.T, labels.T, strict=True)
    ]


def _share(kept: np.ndarray, owners: np.ndarray, confidence: float) -> Interval:
    """A share of images, with the variance of a ratio whose draws are patients."""
    groups = np.unique(owners, return_inverse=True)[1]
    count = int(groups.max()) + 1 if len(groups) else 0
    basis = Basis(len(kept), count, count)
    if not count:
        return basis.interval(float("nan"))
    share = float(kept.mean())
    residuals = np.bincount(groups, kept - share, minlength=count)
    variance = float(np.square(residuals).sum()) / len(kept) ** 2 * count / max(count - 1, 1)
    return from_variance(share, variance, basis, confidence)
