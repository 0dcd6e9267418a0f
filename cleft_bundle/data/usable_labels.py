"""The one rule of which labels can be learnt from, and what they say.

``multiclass``: an image is usable where it is positive for exactly one class, whatever is unknown of the others: they
exclude each other, so that it has none of them. An image of none of the classes, of several, or without any positive
is not. ``multilabel``: each known entry stands for itself, and an image is usable where any entry is known.

Whatever learns from labels (fine-tuning, linear probe, prompt fine-tuning, the linear head) takes the usable images
alone, and so do accuracy, calibration and confusion matrix.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

Labels = TypeVar("Labels", np.ndarray, torch.Tensor)


_EXPECTED = {
    "multiclass": "expected images that are positive for exactly one class",
    "multilabel": "expected images with a known label, positive or negative, for a class",
}


def usable_rows(labels: Labels, task: Task) -> Labels:
    """Tell which images can be learnt from: bool [N].

    Args:
        labels: array or tensor [N, K] of 1, 0 and NaN (unknown).
        task: ``multiclass`` or ``multilabel``.
    """
    if task == "multiclass":
        return (labels == 1).sum(1) == 1
    return ((labels == 1) | (labels == 0)).any(1)


def class_numbers(labels: Labels) -> Labels:
    """The class of each usable image of a ``multiclass`` task: int [N], of labels [N, K]."""
    return ((labels == 1) * 1).argmax(1)


def exclusive(labels: np.ndarray) -> np.ndarray:
    """Classes that labels [N, K] of a ``multiclass`` task say to be present or absent.

    A usable image has its class and none of the others. One of several classes says nothing. One without a positive
    says of which classes it is not, which is an answer to "this class or not", and to no other question.

    Returns:
        float [N, K] of 1, 0 and NaN, with at most one 1 per image.
    """
    positives = (labels == 1).sum(axis=1, keepdims=True)
    return np.where(positives == 1, (labels == 1).astype(float), np.where(positives > 1, np.nan, labels))


def usable_items(items: Sequence[Item], task: Task) -> list[Item]:
    """Keep the images that can be learnt from, and say in one line how many were left out, and why.

    Args:
        items: items of a datalist, with ``label``.
        task: ``multiclass`` or ``multilabel``.

    Raises:
        BundleError: where there is none; says what was expected.
    """
    usable = usable_rows(label_matrix(items), task)
    if not usable.any():
        found = label_summary(items, task) or "there is no image"
        raise BundleError(f"no label to train on: {_EXPECTED[task]} (task '{task}'), but {found}")
    if not usable.all():
        logger.warning("left out of the training on labels: %d of %d images; %s",
                       (~usable).sum(), len(items), label_summary(items, task))  # fmt: skip
    return [item for item, kept in zip(items, usable, strict=True) if kept]


def label_summary(items: Sequence[Item], task: Task) -> str:
    """Count the images with and without a usable label, for one line of a log; empty where all are usable.

    Args:
        items: items of a datalist, with ``label``.
        task: ``multiclass`` or ``multilabel``.

    Returns:
        such as ``45 of 66 have a usable label (multiclass): 12 are of none of the classes, 9 of several``.
    """
    labels = label_matrix(items)
    usable = usable_rows(labels, task)
    if usable.all() or not labels.shape[1]:
        return ""
    several, none = (labels == 1).sum(axis=1) > 1, (labels == 0).all(axis=1)
    unknown = ~usable & ~several & ~none
    counts = {"of none of the classes": none & ~usable, "of several": several & ~usable, "of unknown class": unknown}
    reasons = [f"{rows.sum()} {reason}" for reason, rows in counts.items() if rows.any()]
    return f"{usable.sum()} of {len(items)} have a usable label ({task}): {', '.join(reasons)}"


def label_matrix(items: Sequence[Item]) -> np.ndarray:
    """The labels of N items: float64 [N, K] of 1, 0 and NaN; [0, 0] of none."""
    return np.array([item["label"] for item in items], dtype=float).reshape(len(items), -1 if items else 0)
