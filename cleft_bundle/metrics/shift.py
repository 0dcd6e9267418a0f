"""The distance of images from those that a network was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.stats import ks_2samp  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cleft_bundle.errors import BundleError

_FOLDS = 5
_AT_MOST = 5000  # images of a side that tell embeddings apart


@dataclass(frozen=True)
class Shift:
    """Distance of the values of a variable from those of a reference; what does not apply is NaN.

    Args:
        n_reference: number of known values of the reference.
        n_other: number of known values of the others.
        unknown_reference: share of unknown values, 0..1.
        unknown_other: the same of the others.
        standardised_difference: of numbers, the others' mean minus the reference's, in standard deviations (the root of
            the mean of both variances); 0.1 is small.
        ks_distance: of numbers, the largest distance of the cumulative shares, 0..1 (Kolmogorov and Smirnov).
        total_variation: of categories, half the sum of the differences of shares, 0..1: so many of the others would
            have to be of another category.
    """

    n_reference: int
    n_other: int
    unknown_reference: float
    unknown_other: float
    standardised_difference: float
    ks_distance: float
    total_variation: float


@dataclass(frozen=True)
class EmbeddingShift:
    """Distance of embeddings from those of a reference.

    Args:
        auroc: of a logistic regression that tells one from the other, of patients whom it was not fitted on: 0.5 where
            it cannot, 1 where it always can. NaN of fewer than five patients a side.
        frechet: squared distance of two normal distributions of the same means and covariances, 0 where they are alike.
        n_reference: number of reference images.
        n_other: number of the others.
    """

    auroc: float
    frechet: float
    n_reference: int
    n_other: int


def shift(reference: Sequence[object] | np.ndarray, other: Sequence[object] | np.ndarray) -> Shift:
    """Compare the values of one variable, such as an age or a scanner.

    Args:
        reference: values of the reference, all numbers or all categories (texts); None and NaN are unknown.
        other: values of the others.

    Raises:
        BundleError: where one is of numbers and one of categories.

    Source: Austin, "Balance diagnostics for comparing the distribution of baseline covariates", 2009, for the
    standardised difference.
    """
    sides = [[one for one in values if one is not None and one == one] for values in (reference, other)]  # noqa: PLR0124
    unknown = [1 - len(side) / max(len(values), 1) for side, values in zip(sides, (reference, other), strict=True)]
    known = [*sides[0], *sides[1]]
    numeric = {isinstance(one, (int, float, np.number)) and not isinstance(one, (bool, np.bool_)) for one in known}
    if len(numeric) > 1:
        raise BundleError("shift: expected numbers or categories, got some of both")
    difference = distance = variation = float("nan")
    if all(sides) and numeric == {True}:
        first, second = (np.asarray(side, dtype=np.float64) for side in sides)
        difference, distance = _standardised(first, second), float(ks_2samp(first, second, method="asymp").statistic)
    elif all(sides):
        shares = [{key: number / len(side) for key, number in Counter(map(str, side)).items()} for side in sides]
        variation = sum(abs(shares[0].get(key, 0.0) - shares[1].get(key, 0.0)) for key in {*shares[0], *shares[1]}) / 2
    return Shift(len(sides[0]), len(sides[1]), unknown[0], unknown[1], difference, distance, variation)


def embedding_shift(
    reference: np.ndarray,
    other: np.ndarray,
    reference_patients: Sequence[object] | np.ndarray,
    other_patients: Sequence[object] | np.ndarray,
    seed: int = 0,
) -> EmbeddingShift:
    """Compare embeddings; of more than 5,000 images a side so many are drawn.

    Args:
        reference: [N, D].
        other: [M, D].
        reference_patients: [N]; images of a patient never stand on both sides of a fit.
        other_patients: [M].
        seed: of draws and folds.

    Raises:
        BundleError: where the widths differ, or a side has fewer than two images.

    Source: Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017; Dowson and Landau, "The Frechet
    distance between multivariate normal distributions", 1982 (the FID of Heusel et al., 2017, with these embeddings).
    """
    first, second = (np.asarray(part, dtype=np.float64) for part in (reference, other))
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise BundleError(f"shift: expected embeddings of one width, two or more, got {first.shape} and {second.shape}")
    rng = np.random.default_rng(seed)
    picked = [rng.permutation(len(part))[:_AT_MOST] for part in (first, second)]
    rows = np.vstack([first[picked[0]], second[picked[1]]])
    side = np.repeat([0, 1], [len(one) for one in picked])
    owners = np.concatenate([np.asarray(part, dtype=str)[one] for part, one in
                             zip((reference_patients, other_patients), picked, strict=True)])  # fmt: skip
    return EmbeddingShift(_told_apart(rows, side, owners, seed), _frechet(first, second), len(first), len(second))


def _standardised(first: np.ndarray, second: np.ndarray) -> float:
    if min(len(first), len(second)) < 2:
        return float("nan")
    spread = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    distance = second.mean() - first.mean()
    if spread == 0:
        return 0.0 if distance == 0 else float("nan")
    return float(distance / spread)


def _told_apart(rows: np.ndarray, side: np.ndarray, owners: np.ndarray, seed: int) -> float:
    if min(len(set(owners[side == one])) for one in (0, 1)) < _FOLDS:
        return float("nan")
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    scores = np.empty(len(side))
    for fitted, held in folds.split(rows, side, owners):
        if len(set(side[fitted])) < 2:
            return float("nan")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=200))
        scores[held] = model.fit(rows[fitted], side[fitted]).decision_function(rows[held])
    return float(roc_auc_score(side, scores))


def _frechet(first: np.ndarray, second: np.ndarray) -> float:
    means = [part.mean(axis=0) for part in (first, second)]
    spreads = [np.atleast_2d(np.cov(part, rowvar=False)) for part in (first, second)]
    values, vectors = eigh(spreads[0])
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    shared = np.sqrt(np.clip(eigh(root @ spreads[1] @ root, eigvals_only=True), 0, None)).sum()
    distance = float(((means[0] - means[1]) ** 2).sum() + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * shared)
    return max(distance, 0.0)
