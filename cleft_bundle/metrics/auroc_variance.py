"""DeLong's variance of the AUROC, its interval and its paired test, without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, t  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.intervals import Basis, Interval, from_variance


@dataclass(frozen=True)
class DelongTest:
    """Two AUROCs of the same images.

    Args:
        difference: the first minus the second.
        low: lower bound of its interval.
        high: upper bound.
        p_value: two-sided, of no difference.
    """

    difference: float
    low: float
    high: float
    p_value: float


def delong(
    scores: np.ndarray, labels: np.ndarray, patients: Sequence[object] | np.ndarray | None = None
) -> tuple[float, float]:
    """Compute an AUROC and its variance.

    DeLong's own variance holds for independent images. Given their patients, it is Obuchowski's, in which the images of
    a patient may depend on each other; with one image a patient both are the same.

    Args:
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
        patients: [N], whose image each one is; None: each of another patient.

    Returns:
        AUROC in 0..1 and variance.

    Raises:
        BundleError: where fewer than two patients have a positive image, or fewer than two a negative one.

    Source: DeLong et al., 1988; Sun and Xu, "Fast implementation of DeLong's algorithm", 2014; Obuchowski,
    "Nonparametric analysis of clustered ROC curve data", 1997.
    """
    auroc, covariance = _covariance(np.asarray(scores)[None], labels, patients)
    return float(auroc[0]), float(covariance[0, 0])


def delong_interval(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return an AUROC with the interval of :func:`delong`'s variance.

    Of the plain, the logit and Wilson's form the latter has the coverage nearest to the nominal one for few images and
    high AUROC; docs/statistics.md has the table.

    Args:
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
        patients: [N], as in :func:`delong`.
        confidence: such as 0.95.

    Raises:
        BundleError: as :func:`delong` does.
    """
    auroc, variance = delong(scores, labels, patients)
    return from_variance(auroc, variance, _basis(labels, patients), confidence)


def delong_test(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[object] | np.ndarray | None = None,
    confidence: float = 0.95,
) -> DelongTest:
    """Test whether two scores of the same images have the same AUROC.

    Args:
        first: float [N].
        second: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
        patients: [N], as in :func:`delong`.
        confidence: of the interval of the difference.

    Raises:
        BundleError: as :func:`delong` does.
    """
    auroc, covariance = _covariance(np.stack([first, second]), labels, patients)
    difference = float(auroc[0] - auroc[1])
    deviation = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    if deviation == 0:  # scores that rank alike
        return DelongTest(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    student = t(_basis(labels, patients).support - 1)
    half = float(student.ppf((1 + confidence) / 2)) * deviation
    p_value = float(2 * student.sf(abs(difference) / deviation))
    return DelongTest(difference, difference - half, difference + half, p_value)


def _basis(labels: np.ndarray, patients: Sequence[object] | np.ndarray | None) -> Basis:
    owners = np.arange(len(labels)) if patients is None else np.asarray(patients, dtype=str)
    sides = [len(np.unique(owners[labels == side])) for side in (1, 0)]
    known = ~np.isnan(labels)
    return Basis(int(known.sum()), len(np.unique(owners[known])), min(sides))


def _covariance(
    scores: np.ndarray, labels: np.ndarray, patients: Sequence[object] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs [S] of scores [S, N] and their covariance [S, S]."""
    labels = np.asarray(labels, dtype=float)
    known = ~np.isnan(labels)
    owners = np.arange(len(labels)) if patients is None else np.asarray(patients, dtype=str)
    _, owner = np.unique(owners[known], return_inverse=True)
    positive = labels[known] == 1
    scores = np.asarray(scores, dtype=float)[:, known]
    n_positive, n_negative = positive.sum(), (~positive).sum()
    with_positive, with_negative = (len(np.unique(owner[side])) for side in (positive, ~positive))
    if min(with_positive, with_negative) < 2:
        raise BundleError(
            "delong: expected two patients or more with and without the finding, "
            f"got {with_positive} with and {with_negative} without"
        )
    ranks = rankdata(scores, axis=1)
    beaten = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative  # of each positive, share
    beating = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive  # of each negative
    auroc = beaten.mean(axis=1)
    count = int(owner.max()) + 1
    above, below = np.zeros((2, count, len(scores)))
    np.add.at(above, owner[positive], (beaten - auroc[:, None]).T)
    np.add.at(below, owner[~positive], (beating - auroc[:, None]).T)
    above, below = above / n_positive, below / n_negative
    cross = count / (count - 1) * above.T @ below
    variance = with_positive / (with_positive - 1) * above.T @ above
    variance += with_negative / (with_negative - 1) * below.T @ below
    return auroc, variance + cross + cross.T
