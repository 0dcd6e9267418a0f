"""Scored images from files: a table of scores of any tool, or a classifier that scores the images now."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cleft_bundle.data.item import Item, changed
from cleft_bundle.data.usable_labels import label_matrix
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.inference import HeatMaps, Scorer
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.reports.evaluation.case_pictures import Explain
from cleft_bundle.reports.evaluation.combined import Combination
from cleft_bundle.reports.evaluation.operating import described
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.evaluation.shift import Embed
from cleft_bundle.reports.evaluation.tables import join, read_label_table, read_score_table, task_of

logger = logging.getLogger(__name__)


def scored_by_table(
    scores: str,
    labels: str,
    name: str,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    split: str | None = None,
    combine: str | None = None,
    images: str | None = None,
) -> ScoredImages:
    """Take the scores of a table for the images of a table of labels.

    Args:
        scores: see :func:`cleft_bundle.reports.evaluation.tables.read_score_table`.
        labels: see :func:`cleft_bundle.reports.evaluation.tables.read_label_table`.
        name: what the classifier is called.
        classes: the classes to take; None: all.
        task: ``multiclass`` or ``multilabel``; None: what the scores look like.
        split: only the rows of labels of this split; None: all.
        combine: see :class:`cleft_bundle.reports.evaluation.combined.Combination`.
        images: folder of the images; None: where the labels say.

    Raises:
        BundleError: a table is not as described, or the two share no image.
    """
    table = read_score_table(scores, classes)
    if task is not None:
        require_one_of("task", task, ("multiclass", "multilabel"))
    sums = combine is not None and task is None
    found: Any = task or (task_of(table.scores, []) if sums else None)
    combination = Combination(table.class_names, found or "multilabel", combine)
    truth = read_label_table(labels, combination.class_names, split)
    values, errors, left_out = join(table, truth)
    items = located(truth.items, images)
    values = combination(values)
    return ScoredImages(
        class_names=combination.class_names,
        task=found or task_of(values, items),
        scores=values,
        labels=label_matrix(items),
        items=items,
        name=name,
        errors=errors,
        left_out=left_out,
    )


def scored_by_model(
    scorer: Scorer,
    labels: str,
    name: str,
    split: str | None = None,
    combine: str | None = None,
    images: str | None = None,
) -> ScoredImages:
    """Let a classifier score the images of a table of labels.

    Args:
        scorer: the classifier; calibration and thresholds are those that its file holds.
        labels: see :func:`cleft_bundle.reports.evaluation.tables.read_label_table`.
        name: what the classifier is called.
        split: only the rows of labels of this split; None: all.
        combine: see :class:`cleft_bundle.reports.evaluation.combined.Combination`.
        images: folder of the images; None: where the labels say.

    Raises:
        BundleError: the table is not as described, or none of its images can be scored.
    """
    combination = Combination(scorer.class_names, scorer.task, combine)
    truth = read_label_table(labels, combination.class_names, split)
    items = located(truth.items, images)
    if not any(os.path.isfile(item["image"]) for item in items):
        raise BundleError(
            f"none of the {len(items)} images exists, the first: {items[0]['image']}; pass --images FOLDER"
        )
    found = scorer.score(items, progress="scoring images")
    thresholds = {one: limit for one, limit in (scorer.thresholds or {}).items() if one in combination.class_names}
    return ScoredImages(
        class_names=combination.class_names,
        task=scorer.task,
        scores=combination(found.scores),
        labels=label_matrix(items),
        items=items,
        name=name,
        errors=found.errors,
        logits=None if combination.changes else found.logits,
        thresholds=thresholds or None,
        calibration=_calibration(scorer),
        conformal={} if combination.changes else scorer.operating_point.get("conformal", {}).get("limits", {}),
        chosen=_chosen(scorer.operating_point),
        left_out=truth.left_out,
        provenance={},
    )


def _chosen(stored: Mapping[str, Any]) -> dict[str, Any]:
    """How a file says that its calibration and its thresholds were chosen; empty where it does not say."""
    if not stored.get("rule"):
        return {}
    return {"rule": stored["rule"], "target": stored.get("target"), "on": "the images that its file was calibrated on"}


def maps_by(scorer: Scorer) -> Explain | None:
    """Drawer of a classifier's heat maps; None where the form of its file gives none."""
    if not isinstance(scorer.network, ZeroShotClassifier):
        return None
    try:
        maps = HeatMaps(scorer.network, scorer.transforms)
    except BundleError as error:  # transforms that cannot be undone
        logger.warning("cases get no heat map: %s", error)
        return None

    def explain(item: Item, _image: torch.Tensor, name: str) -> np.ndarray | None:
        if name not in scorer.class_names:  # classes that were added up
            return None
        try:
            return maps(maps.load({"image": item["image"]}), [name])[0].numpy()
        except BundleError as error:  # towers of which there is no map
            logger.warning("a case gets no heat map: %s", error)
            return None

    return explain


def embedding_by(scorer: Scorer) -> Embed | None:
    """Function that embeds images as a classifier does; None where the form of its file gives no embeddings."""
    if not scorer.network.embeds:
        return None
    return lambda items: np.asarray(scorer.score(items, embeddings=True).embeddings)


def _calibration(scorer: Scorer) -> Mapping[str, Any]:
    """The calibration that a file holds, as reports tell it."""
    found = scorer.calibration
    if found is None:
        return {"method": "none", "temperature": 1.0, "bias": dict.fromkeys(scorer.class_names, 0.0)}
    told = scorer.operating_point.get("calibration")
    method = told if told in ("temperature", "bias") else "bias" if any(found.bias) else "temperature"
    return described(found, method, scorer.class_names)


def located(items: Sequence[Item], images: str | None) -> list[Item]:
    """Items whose images lie in a folder: below it as the table names them, or straight in it by their file names."""
    if images is None:
        return list(items)
    if not os.path.isdir(images):
        raise BundleError(f"images: there is no folder {images}")
    found = []
    for item in items:
        below = os.path.join(images, item["name"])
        straight = os.path.join(images, os.path.basename(item["name"]))
        found.append(changed(item, image=straight if not os.path.isfile(below) and os.path.isfile(straight) else below))
    return found
