"""Linear probe: a logistic regression on the features of an image tower that stays as it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cleft_bundle.checkpoints import check_pictures
from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import PICTURE, warn_of_shared
from cleft_bundle.data.splits import select_split
from cleft_bundle.data.subsets import patient_fraction
from cleft_bundle.data.usable_labels import class_numbers, label_matrix, usable_items, usable_rows
from cleft_bundle.distributed import rank
from cleft_bundle.engines.features import embed_together
from cleft_bundle.errors import BundleError
from cleft_bundle.files import sha256
from cleft_bundle.handlers.label_efficiency import LabelEfficiency
from cleft_bundle.handlers.label_points import Point
from cleft_bundle.metrics import Predictions, classification_metrics
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

METHOD = "linear probe"
MAX_STEPS = 5000


class LinearProbe:
    """scikit-learn's logistic regression on standardised features.

    ``multiclass`` fits one multinomial regression on the images of exactly one class; ``multilabel`` one per
    class, each on the images whose label for it is known. The rule is that of
    :mod:`cleft_bundle.data.usable_labels`, as for every other training on labels.

    Args:
        task: ``multiclass`` or ``multilabel``.
        class_names: names of the K classes.
        strength: scikit-learn's ``C``, the inverse of the strength of the L2 penalty.
    """

    def __init__(self, task: Task, class_names: Sequence[str], strength: float) -> None:
        self.task = task
        self.class_names = list(class_names)
        self.strength = strength
        self.models: list[Pipeline] = []

    def fit(self, features: np.ndarray, labels: np.ndarray) -> LinearProbe:
        """Fit the regressions, and return this probe.

        Args:
            features: float [N, D].
            labels: [N, K] of 1, 0 and NaN (unknown).

        Raises:
            BundleError: names the classes of which there is no positive, or for ``multilabel`` no negative image.
        """
        _check_classes(labels, self.class_names, self.task, f"{len(labels)} training images")
        self.models = []
        for rows, target in _targets(labels, self.task):
            # features of some backbones are far from unit variance, which the penalty takes for granted
            model = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=MAX_STEPS))
            self.models.append(model.fit(features[rows], target))
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Probabilities [N, K] of features [N, D]: they sum to one for ``multiclass``, each is for itself otherwise."""
        probabilities = [model.predict_proba(features) for model in self.models]
        if self.task == "multiclass":
            return probabilities[0]
        return np.column_stack([columns[:, 1] for columns in probabilities])


def check_learnable(items: Sequence[Item], class_names: Sequence[str], task: Task, fraction: float) -> None:
    """Refuse training items from which some class cannot be learnt.

    Args:
        items: the items, with ``label`` in the order of ``class_names``.
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
        fraction: which share of the training patients they are, for the message.

    Raises:
        BundleError: names the classes of which there is no usable positive, or for ``multilabel`` no negative image.
    """
    where = f"{100 * fraction:.4g} % of the training patients ({len(items)} images)"
    _check_classes(label_matrix(items), class_names, task, where)


def _check_classes(labels: np.ndarray, class_names: Sequence[str], task: Task, where: str) -> None:
    labels = labels[usable_rows(labels, task)]
    for value, kind in ((1, "positive"), (0, "negative")):
        lacking = [name for name, column in zip(class_names, labels.T, strict=True) if not (column == value).any()]
        if lacking and (value == 1 or task == "multilabel"):
            raise BundleError(
                f"{where}: no {kind} image of {', '.join(lacking)}; take a larger fraction, or leave the class out of "
                "the prompts"
            )


def _targets(labels: np.ndarray, task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and targets of each regression."""
    if task == "multiclass":
        rows = usable_rows(labels, task)
        return [(rows, class_numbers(labels[rows]))]
    return [(~np.isnan(column), column[~np.isnan(column)].astype(int)) for column in labels.T]


@dataclass(frozen=True)
class Probing:
    """The whole comparison: sources of the image tower against fractions of the labels.

    Every image is read once and goes once through each tower. A fraction keeps whole patients and lies within the
    larger ones; it is one of what the training split holds. ``C`` is the one with the highest macro AUROC on the
    validation patients, the smallest of several.

    Args:
        towers: source to image tower.
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        evaluate_split: the split whose figures are reported.
        fractions: shares of the training patients, above 0 and up to 1.
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
        strengths: values of ``C`` to choose from.
        checkpoint: the file that source ``cleft`` came from.
        seed: of the fractions, ``subset_seed`` in a config.
    """

    towers: Mapping[str, ImageEncoder]
    splits: Mapping[str, list[Item]]
    evaluate_split: str
    fractions: Sequence[float]
    class_names: Sequence[str]
    task: Task
    strengths: Sequence[float]
    checkpoint: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse what would fail after the features have been computed.

        Raises:
            BundleError: an empty split, or a fraction without images of some class: names it.
        """
        if not self.fractions or not self.strengths:
            raise BundleError("fractions and strengths: expected at least one number each")
        select_split(self.splits, self.evaluate_split)
        select_split(self.splits, "validation")
        for fraction, items in self.training.items():
            check_learnable(items, self.class_names, self.task, fraction)

    def run(
        self,
        transform: Any,
        device: torch.device | str,
        comparison: LabelEfficiency,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> list[Point]:
        """Compute the features, fit all probes and put them into the comparison.

        Args:
            transform: from an item to ``image`` [3, H, W].
            device: where the towers go.
            comparison: receives the points.
            batch_size: images at a time.
            num_workers: processes that read images.

        Returns:
            the points, those of one source after another; of several processes the first one has them.
        """
        features = self._features(transform, device, batch_size, num_workers)
        if rank() > 0:
            return []
        points = []
        with comparison.opened():
            for source in self.towers:
                for fraction, items in self.training.items():
                    point = self._probe(source, fraction, items, features[source], comparison)
                    comparison.add(point)
                    points.append(point)
        logger.info("\n".join(["linear probe is done:", *comparison.summary()]))
        return points

    @cached_property
    def training(self) -> dict[float, list[Item]]:
        """Fraction to its usable items, the smallest first; the same as those of a fine-tuning on it."""
        items = self.splits["train"]
        usable = {item["name"] for item in usable_items(items, self.task)}
        return {
            fraction: [item for item in patient_fraction(items, fraction, self.seed) if item["name"] in usable]
            for fraction in sorted(self.fractions)
        }

    @cached_property
    def _checkpoint_sha256(self) -> str:
        return sha256(self.checkpoint)

    def _features(self, transform: Any, device: Any, *loading: int) -> dict[str, dict[str, np.ndarray]]:
        """Source to the names of images to their features [D]."""
        towers = [tower.to(device).eval() for tower in self.towers.values()]
        parts = [self.training[max(self.training)], self.splits["validation"], self.splits[self.evaluate_split]]
        items = list({item["name"]: item for part in parts for item in part}.values())

        def encode(image: torch.Tensor) -> torch.Tensor:
            return torch.cat([tower.features(image) for tower in towers], dim=1)

        rows, pictured = embed_together(items, transform, encode, device, *loading)
        self._say_shared(pictured)
        columns = rows.split([tower.width for tower in towers], dim=1)
        keys = [item["name"] for item in items]
        return {
            source: dict(zip(keys, rows.numpy(), strict=True))
            for source, rows in zip(self.towers, columns, strict=True)
        }

    def _say_shared(self, pictured: Sequence[Item]) -> None:
        """Say in the log which pictures the splits share under different patients, and which the checkpoint knows."""
        if rank() > 0:
            return
        known = {item["name"]: item for item in pictured}
        parts = {split: self.splits[split] for split in dict.fromkeys(["train", "validation", self.evaluate_split])}
        shown = {
            split: [known[item["name"]] for item in part if item["name"] in known] for split, part in parts.items()
        }
        warn_of_shared(shown)
        if "cleft" in self.towers and any(PICTURE in item for item in shown[self.evaluate_split]):
            check_pictures(self.checkpoint, shown[self.evaluate_split])

    def _probe(
        self,
        source: str,
        fraction: float,
        items: Sequence[Item],
        features: Mapping[str, np.ndarray],
        comparison: LabelEfficiency,
    ) -> Point:
        def of(part: Sequence[Item]) -> np.ndarray:
            return np.stack([features[item["name"]] for item in part])

        validation = self.splits["validation"]
        train, labels, held_out = of(items), label_matrix(items), of(validation)
        best, best_auroc = None, -math.inf
        for strength in sorted(self.strengths):
            probe = LinearProbe(self.task, self.class_names, strength).fit(train, labels)
            auroc = _macro_auroc(as_predictions(probe.scores(held_out), validation, self.class_names, self.task))
            if auroc > best_auroc:
                best, best_auroc = probe, auroc
        if best is None:
            raise BundleError("validation: no class has both positive and negative images, so C cannot be chosen")
        evaluated = self.splits[self.evaluate_split]
        predictions = as_predictions(best.scores(of(evaluated)), evaluated, self.class_names, self.task)
        settings: dict[str, Any] = {"C": best.strength, "validation_auroc_macro": best_auroc}
        settings["parameters"] = sum(model[-1].coef_.size + model[-1].intercept_.size for model in best.models)
        settings |= {"checkpoint": self._checkpoint_sha256} if source == "cleft" else {}
        return comparison.measure(METHOD, source, fraction, items, predictions, settings)


def as_predictions(scores: np.ndarray, items: Sequence[Item], class_names: Sequence[str], task: Task) -> Predictions:
    """The scores [N, K] of N items with what the items know of themselves."""
    names, patients = ([item[key] for item in items] for key in ("name", "patient_id"))
    return Predictions(scores, label_matrix(items), class_names, task, names, patients)


def _macro_auroc(predictions: Predictions) -> float:
    return classification_metrics(predictions, metrics=["auroc"]).get("auroc_macro", -math.inf)
