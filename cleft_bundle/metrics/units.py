"""From scores of images to scores of patients, studies or breasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.metrics.predictions import Predictions

How = Literal["max", "mean"]


def by_unit(predictions: Predictions, units: Sequence[object] | np.ndarray, how: How = "max") -> Predictions:
    """Join the images of each patient, study or breast into one row.

    A unit has a class where any of its images has, and does not have it where none has and all are known; otherwise its
    label is unknown. For ``multiclass`` the joined probabilities are made to add up to one again, which changes no
    highest class.

    Args:
        predictions: of N images.
        units: [N], the unit of each image, such as its patient, or patient and side; None leaves an image out.
        how: ``max``, the highest score of its images, or ``mean``, their mean; both class by class.

    Returns:
        predictions of the units in the order in which they first occur, each named as it is. A value of a group is kept
        where all images of the unit share it.

    Raises:
        BundleError: where a unit holds images of several patients, or there is no unit.
    """
    require_one_of("how", how, get_args(How))
    if len(units) != len(predictions):
        raise BundleError(f"units: expected one for each of {len(predictions)} images, got {len(units)}")
    kept = np.array([unit is not None for unit in units])
    if not kept.any():
        raise BundleError("units: no image belongs to one")
    predictions = predictions.select(kept)
    texts = np.array([str(unit) for unit, own in zip(units, kept, strict=True) if own])
    _, first, unit = np.unique(texts, return_index=True, return_inverse=True)
    order = np.argsort(first)
    first, number = first[order], np.argsort(order)[unit]
    patients = np.asarray(predictions.patients)
    mixed = np.array(patients[first][number] != patients, dtype=bool)
    if mixed.any():
        raise BundleError(f"units: {len(set(number[mixed].tolist()))} of {len(first)} hold images of several patients")
    scores = _each(np.fmax if how == "max" else np.add, predictions.scores, number, len(first))
    if how == "mean":
        scores /= np.bincount(number)[:, None]
    if predictions.task == "multiclass":
        scores = _whole(scores, predictions.scores)
    known = _each(np.fmax, predictions.labels, number, len(first))
    unknown = _each(np.fmax, np.isnan(predictions.labels).astype(float), number, len(first)) == 1
    labels = np.where(unknown & (known != 1), np.nan, known)
    groups = {name: _shared(np.asarray(values), first, number) for name, values in predictions.groups.items()}
    names, class_names = texts[first], predictions.class_names
    return Predictions(scores, labels, class_names, predictions.task, names, patients[first], groups)


def _each(join: np.ufunc, values: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Join the rows [N, K] of each unit: [count, K]."""
    order = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=count))[:-1]])
    return join.reduceat(values[order], starts, axis=0)


def _whole(scores: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Scores of units that add up to one, where those of their images do."""
    if images.min() < 0 or not np.allclose(images.sum(axis=1), 1, atol=1e-4):
        return scores
    return scores / scores.sum(axis=1, keepdims=True)


def _shared(values: np.ndarray, first: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The value that all images of each unit have, else None."""
    alike = np.ones(len(first), dtype=bool)
    same: Callable[[object, object], bool] = lambda one, other: one == other  # noqa: E731
    for unit, value in zip(number.tolist(), values.tolist(), strict=True):
        alike[unit] &= same(values[first[unit]], value)
    result = values[first].copy()
    result[~alike] = None
    return result
