"""Typicality learnt from validation images, by scikit-learn."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import cholesky  # type: ignore[import-untyped]  # scipy ships no type information
from sklearn.cluster import KMeans
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import GroupKFold

from cleft_bundle.checkpoints.patient_roles import LEAST
from cleft_bundle.distributed import rank
from cleft_bundle.networks.classifiers.typicality import LEVELS, Typicality

logger = logging.getLogger(__name__)

#: So many validation patients say where their last 5 % begin; of fewer nothing is learnt.
MIN_PATIENTS = 20
_FOLDS = 5
_NEIGHBOURS = 64
_AT_MOST = 5000  # images: more make covariance and neighbours no better
_COLLAPSED = 1e-9  # variance by squared length of embeddings that are all alike, but for rounding


def fit_typicality(
    embeddings: np.ndarray, labels: np.ndarray, patients: Sequence[object] | None = None, seed: int = 0
) -> Typicality | None:
    """Learn what validation images look like to a classifier.

    Distances that set the quantiles are those of patients who had no part in means, covariance and neighbours: the
    patients are divided into five parts, and each is measured by the other four.

    Args:
        embeddings: [N, D], as the classifier's head takes them.
        labels: [N, K] of 1, 0 and NaN; a class counts with five positive images or more, and images of none are a class
            of their own.
        patients: [N], whose image each one is; None: each of another patient.
        seed: of the choice among more than 5000 images, and of the neighbours.

    Returns:
        what was learnt; None, and the log says why, where patients are too few or all embeddings are alike.
    """
    rows, labels = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    owners = (
        np.arange(len(rows)) if patients is None else np.unique([str(one) for one in patients], return_inverse=True)[1]
    )
    kept = np.flatnonzero(np.isfinite(rows).all(axis=1))
    if len(kept) > _AT_MOST:
        kept = np.random.default_rng(seed).permutation(kept)[:_AT_MOST]
    rows, labels, owners = rows[kept], labels[kept], owners[kept]
    if (count := len(np.unique(owners))) < MIN_PATIENTS:
        _say_unknown(f"{count} validation patients are too few ({MIN_PATIENTS} are needed)")
        return None
    if rows.var(axis=0).sum() <= _COLLAPSED * np.square(rows).sum(axis=1).mean():
        _say_unknown("the embeddings of all validation images are alike")
        return None
    distances = np.empty((len(rows), 3))
    for rest, part in GroupKFold(_FOLDS).split(rows, groups=owners):
        model = _model(rows[rest], labels[rest], seed)
        distances[part] = model.distances(torch.from_numpy(rows[part])).numpy()
    return _with_quantiles(_model(rows, labels, seed), distances, owners)


def _model(rows: np.ndarray, labels: np.ndarray, seed: int) -> Typicality:
    """Means, covariances and neighbours of images; spreads and quantiles are not known yet."""
    means, residuals = [], []
    for members in _groups(labels):
        means.append(rows[members].mean(axis=0))
        residuals.append(rows[members] - means[-1])
    centre = rows.mean(axis=0)
    tensors = (
        np.stack(means),
        _whitening(np.concatenate(residuals)),
        centre,
        _whitening(rows - centre),
        _neighbours(rows, seed),
        np.tile([0.0, 1.0], (3, 1)),
        np.arange(len(LEVELS), dtype=float),
    )
    return Typicality(*map(torch.from_numpy, tensors))


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    positive = labels == 1
    groups = [np.flatnonzero(members) for members in (*positive.T, ~positive.any(axis=1))]
    return [members for members in groups if len(members) >= LEAST] or [np.arange(len(labels))]


def _whitening(residuals: np.ndarray) -> np.ndarray:
    """A matrix W with W.T @ W the inverse of a shrunk covariance, which is never singular."""
    covariance = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    floor = 1e-6 * np.trace(covariance) / len(covariance)  # classes whose images are all alike
    covariance[np.diag_indices_from(covariance)] += max(floor, 1e-12)
    inverse: np.ndarray = np.linalg.inv(cholesky(covariance, lower=True))
    return inverse


def _neighbours(rows: np.ndarray, seed: int) -> np.ndarray:
    """Means of images that are alike, of five or more each: a classifier's file keeps no single patient's."""
    parts = max(1, min(_NEIGHBOURS, len(rows) // (2 * LEAST)))
    found = KMeans(parts, n_init=1, random_state=seed).fit(rows)
    large = np.bincount(found.labels_, minlength=parts) >= LEAST
    return found.cluster_centers_[large] if large.any() else rows.mean(axis=0, keepdims=True)


def _with_quantiles(model: Typicality, distances: np.ndarray, owners: np.ndarray) -> Typicality:
    middle, top = np.quantile(distances, [0.5, 0.95], axis=0)
    spread = np.maximum(top - middle, 1e-6 * np.maximum(1, np.abs(middle)))
    model.spreads = torch.from_numpy(np.stack([middle, spread], axis=1)).float()
    largest = model.largest(torch.from_numpy(distances)).numpy()
    worst = np.full(owners.max() + 1, -np.inf)
    np.maximum.at(worst, owners, largest)
    worst = np.sort(worst[np.isfinite(worst)])
    # so many of n + 1 patients, a new one among them, are below: that is exact for any n
    places = np.ceil((len(worst) + 1) * (1 - LEVELS.numpy())).astype(int).clip(1, len(worst)) - 1
    model.quantiles = torch.from_numpy(worst[places]).float()
    return model


def _say_unknown(why: str) -> None:
    if rank() == 0:
        logger.warning("typicality of images will not be known: %s", why)
