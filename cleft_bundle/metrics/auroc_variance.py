"""DeLong's variance of the AUROC, its interval and its paired test, without resampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, t  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Basis, Interval, from_variance
from cleft_bundle.metrics.predictions import Predictions, align


@dataclass(frozen=True)
class DelongTest:
    """Two AUROCs of the same images.

    Args:
        difference: the first minus the second.
        low: lower bound of its interval.
        high: upper bound.
        p_value: two-sided, of no difference; NaN, as the bounds, where the AUROCs differ and yet do not vary, as one of
            1 and one of 0 do, or where fewer than :data:`cleft_bundle.metrics.MIN_SUPPORT` patients stand behind it.
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
    a patient may depend on each other; with one image per patient both are the same.

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

    Examples:
        >>> import numpy as np
        >>> scores, labels = np.array([0.1, 0.4, 0.35, 0.8] * 10), np.array([0, 0, 1, 1] * 10)
        >>> found = delong_interval(scores, labels)
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.75, 0.555, 0.878)
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
        unknown = float("nan")
        return DelongTest(0.0, 0.0, 0.0, 1.0) if difference == 0 else DelongTest(difference, *3 * [unknown])
    student = t(_basis(labels, patients).support - 1)
    half = float(student.ppf((1 + confidence) / 2)) * deviation
    p_value = float(2 * student.sf(abs(difference) / deviation))
    return DelongTest(difference, difference - half, difference + half, p_value)


def delong_intervals(predictions: Predictions, confidence: float = 0.95) -> dict[str, Interval]:
    """Return the AUROC of each class with :func:`delong_interval`'s interval by patients.

    Args:
        predictions: of N images.
        confidence: of the intervals.

    Returns:
        names of classes to intervals; a class of fewer than two patients on a side is absent.
    """
    patients = np.asarray(predictions.patients, dtype=str)
    return {
        name: delong_interval(scores, labels, patients, confidence)
        for name, scores, labels in _columns(predictions, patients)
    }


def delong_comparison(first: Predictions, second: Predictions, confidence: float = 0.95) -> dict[str, DelongTest]:
    """Test for each class whether two evaluations of the same images have the same AUROC, see :func:`delong_test`.

    The p-values are of each class alone; :func:`cleft_bundle.metrics.holm` corrects them for there being several.

    Args:
        first: one set of predictions.
        second: the other, of the same images in any order.
        confidence: of the intervals.

    Returns:
        names of classes to tests, first minus second; a class of fewer than two patients on a side is absent, and one
        of fewer than :data:`cleft_bundle.metrics.MIN_SUPPORT` has its difference only.

    Raises:
        BundleError: where images, patients, labels, classes or task differ.
    """
    second = align(first, second)
    patients = np.asarray(first.patients, dtype=str)
    others = dict(zip(second.class_names, second.scores.T, strict=True))
    tests = {}
    for name, scores, labels in _columns(first, patients):
        test = delong_test(scores, others[name], labels, patients, confidence)
        if _basis(labels, patients).support < MIN_SUPPORT:
            test = DelongTest(test.difference, *3 * [float("nan")])
        tests[name] = test
    return tests


def _columns(predictions: Predictions, patients: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, scores and labels of each class of which two patients or more are on either side."""
    for name, scores, labels in zip(predictions.class_names, predictions.scores.T, predictions.labels.T, strict=True):
        if min(len(np.unique(patients[labels == side])) for side in (1, 0)) >= 2:
            yield name, scores, labels


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
    for column in range(len(scores)):
        above[:, column] = np.bincount(owner[positive], beaten[column] - auroc[column], count)
        below[:, column] = np.bincount(owner[~positive], beating[column] - auroc[column], count)
    above, below = above / n_positive, below / n_negative
    cross = count / (count - 1) * above.T @ below
    variance = with_positive / (with_positive - 1) * above.T @ above
    variance += with_negative / (with_negative - 1) * below.T @ below
    return auroc, variance + cross + cross.T
