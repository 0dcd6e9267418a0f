"""The linear head of a classifier, refitted to labels on embeddings that stay as they are."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cleft_bundle.data.item import Item
from cleft_bundle.data.subsets import digest
from cleft_bundle.data.usable_labels import usable_items, usable_rows
from cleft_bundle.engines.features import embed_images
from cleft_bundle.losses import summed_loss
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

#: How strongly a head is held where it starts, among which cross-validation chooses; infinity leaves it there.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, float("inf"))
FOLDS = 5
_STEPS = 500


@dataclass(frozen=True)
class LinearHead:
    """Logits as a linear function of embeddings.

    Args:
        weights: float64 [K, D].
        bias: float64 [K].
    """

    weights: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, classifier: ZeroShotClassifier) -> LinearHead:
        """The head of a classifier with its scale and its calibration, on the CPU."""
        return cls(*(part.detach().double().cpu() for part in classifier.calibrated_head()))

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits float64 [N, K] of embeddings [N, D]."""
        return embeddings.double() @ self.weights.T + self.bias


def fit_head(
    embeddings: torch.Tensor, labels: torch.Tensor, start: LinearHead, task: Task, strength: float
) -> LinearHead:
    """Fit a head to labels while it is held near to where it starts.

    Minimises the mean negative log-likelihood of the usable labels (:mod:`cleft_bundle.data.usable_labels`) plus
    ``strength / 2N`` times the squared distance of the head from its start, for N usable images. The distance is
    measured on embeddings that are centred and scaled to a mean square norm of 1, so that a strength means the same
    for every tower. A convex problem, solved by L-BFGS.

    Args:
        embeddings: [N, D].
        labels: [N, K] of 1, 0 and NaN (unknown).
        start: what the head is without labels, such as the class embeddings of zero-shot classification.
        task: ``multiclass`` or ``multilabel``.
        strength: above 0; infinity returns the start, as do labels of which none is usable.

    Source: Xuhong, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional
    networks", ICML 2018 (L2-SP).
    """
    if strength == float("inf"):
        return start
    usable = usable_rows(labels, task)
    if not usable.any():
        return start
    rows, labels = embeddings[usable].double(), labels[usable].double()
    centre = rows.mean(dim=0)
    spread = (rows - centre).square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
    rows = (rows - centre) / spread
    # the head on these rows; its last column is the bias
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    initial = torch.cat([start.weights * spread, (start.bias + start.weights @ centre)[:, None]], dim=1)
    change = torch.zeros_like(initial, requires_grad=True)
    solver = torch.optim.LBFGS([change], max_iter=_STEPS, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        solver.zero_grad()
        total, count = summed_loss(rows @ (initial + change).T, labels, task)
        value = total / count + strength / (2 * len(rows)) * change.square().sum()
        value.backward()
        return value

    solver.step(objective)
    fitted = initial + change.detach()
    weights = fitted[:, :-1] / spread
    return LinearHead(weights, fitted[:, -1] - weights @ centre)


def choose_strength(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    start: LinearHead,
    task: Task,
    patients: Sequence[str],
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """Choose the strength under which labels of patients who were left out are most likely.

    Args:
        embeddings: [N, D].
        labels: [N, K] of 1, 0 and NaN (unknown).
        start: as for :func:`fit_head`.
        task: ``multiclass`` or ``multilabel``.
        patients: whom each of the N images is of; a patient is left out as a whole.
        seed: of the division into :data:`FOLDS` folds.
        strengths: what to choose from.

    Returns:
        the best; of equal ones the strongest. With a single patient, the strongest of all.
    """
    order = sorted(set(patients), key=lambda patient: digest(seed, patient))
    fold_of = {patient: number % FOLDS for number, patient in enumerate(order)}
    folds = torch.tensor([fold_of[patient] for patient in patients])
    ranked = sorted(strengths, reverse=True)
    if len(order) < 2:
        return ranked[0]
    totals = []
    for strength in ranked:
        total = 0.0
        for fold in range(min(FOLDS, len(order))):
            held_out = folds == fold
            head = fit_head(embeddings[~held_out], labels[~held_out], start, task, strength)
            total += float(summed_loss(head.logits(embeddings[held_out]), labels[held_out].double(), task)[0])
        totals.append(total)
    return ranked[int(np.argmin(totals))]


def refit_head(
    classifier: ZeroShotClassifier, items: Sequence[Item], loading: Mapping[str, Any], seed: int = 0
) -> ZeroShotClassifier:
    """Fit the head of a classifier to labelled images; each goes through its image tower once.

    Args:
        classifier: in evaluation mode; it stays as it is.
        items: items of a datalist, with ``image``, ``label`` in the order of the classes, and ``patient_id``; the log
            says how many are left out, as their labels are not usable.
        loading: ``transform``, ``device`` and other arguments of :func:`cleft_bundle.engines.features.embed_images`.
        seed: of the cross-validation.

    Returns:
        the same classifier with another head, held as near to where it was as cross-validation on the items advises.

    Raises:
        BundleError: where no item has a usable label.
    """
    items = usable_items(items, classifier.task)
    refitted = copy.deepcopy(classifier).to(loading["device"])
    embeddings = embed_images(items, encode=refitted.image_encoder, **loading)
    labels = torch.tensor([item["label"] for item in items], dtype=torch.float64)
    start, patients = LinearHead.of(classifier), [item["patient_id"] for item in items]
    strength = choose_strength(embeddings, labels, start, classifier.task, patients, seed)
    logger.info("linear head: %d images, held near its start with strength %g", len(items), strength)
    head = fit_head(embeddings, labels, start, classifier.task, strength)
    refitted.set_head(head.weights, head.bias)
    return refitted
