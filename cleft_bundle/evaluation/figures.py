"""The numbers of an evaluation report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import (
    ImageToText,
    Interval,
    Predictions,
    Subgroups,
    bootstrap,
    calibrated_columns,
    confusion_matrix,
    prompt_spread,
    reliability,
    resample,
    retrieval_metrics,
    subgroup_metrics,
)
from cleft_bundle.networks.classifier import Task

#: What of an item tells groups of patients and images apart.
GROUPS = (
    *("sex", "age", "race", "ethnicity", "view", "laterality", "density", "manufacturer"),
    "presentation_intent",
)
_WORDS = {"sex": {"F": "female", "M": "male"}, "laterality": {"L": "left", "R": "right"}}
_AGES = {18: "0 to 17", 40: "18 to 39", 60: "40 to 59", 80: "60 to 79", 999: "80 and over"}  # years, below each bound

Item = dict[str, Any]


@dataclass(frozen=True)
class Resampling:
    """How intervals come about, see :func:`cleft_bundle.metrics.bootstrap`.

    Args:
        resamples: number of resamples.
        confidence: of the intervals.
        seed: of the draws.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what gives no intervals."""
        if isinstance(self.resamples, bool) or not isinstance(self.resamples, int) or self.resamples < 1:
            raise BundleError(f"resamples={self.resamples}: expected a whole number above 0")
        if not 0 < self.confidence < 1:
            raise BundleError(f"confidence={self.confidence}: expected a number between 0 and 1, such as 0.95")


def to_predictions(
    details: Mapping[str, Any], items: Sequence[Item], class_names: Sequence[str], task: Task
) -> Predictions:
    """Join what an evaluation gathered with what the datalist knows of the images.

    Args:
        details: ``names``, ``scores`` and ``label`` of :class:`cleft_bundle.handlers.ZeroShotMetrics`, in any order.
        items: the evaluated items of all processes.
        class_names: names of the classes.
        task: ``multiclass`` or ``multilabel``.

    Returns:
        predictions in the order of the items, with as many of :data:`GROUPS` as any item knows.

    Raises:
        BundleError: where an item has no scores.
    """
    rows = row_order(details["names"], items)
    groups = {
        key: [_group_of(key, item.get(key)) for item in items] for key in GROUPS if any(key in item for item in items)
    }
    names, patients = [item["name"] for item in items], [item["patient_id"] for item in items]
    scores, labels = details["scores"][rows], details["label"][rows]
    return Predictions(scores, labels, class_names, task, names, patients, groups)


def _group_of(key: str, value: Any) -> Any:
    """The value of a group as people read it: codes as words, ages in bands; None where it is unknown."""
    if key == "age" and value is not None and not math.isnan(value):
        return next(band for bound, band in _AGES.items() if value < bound)
    return _WORDS.get(key, {}).get(value, value)


def row_order(names: Sequence[str], items: Sequence[Item]) -> list[int]:
    """The place of each item among some names.

    Raises:
        BundleError: where an item is not among them.
    """
    place = {name: row for row, name in enumerate(names)}
    missing = [item["name"] for item in items if item["name"] not in place]
    if missing:
        raise BundleError(f"report: {len(missing)} of {len(items)} images were not evaluated, the first: {missing[0]}")
    return [place[item["name"]] for item in items]


def figures(
    predictions: Predictions, ranks: tuple[np.ndarray, np.ndarray] | None, resampling: Resampling
) -> dict[str, Any]:
    """Compute what a report says in numbers, as JSON takes it.

    Args:
        predictions: of N images.
        ranks: of :func:`cleft_bundle.metrics.retrieval_ranks`, the images in the order of the predictions; None where
            nothing was retrieved.
        resampling: how the intervals come about.

    Returns:
        ``metrics``: names of :func:`cleft_bundle.metrics.classification_metrics` to value, low and high (None where
        there is no interval), n_images and n_patients; ``classes``: names to counts of labels; ``confusion_matrix``
        of a multiclass task, else None; ``retrieval``, as ``metrics``, or None; ``captions``, how many distinct ones
        there were to choose from; ``reliability``: names of classes, or "highest" for the highest probability of a
        multiclass task, to ``probability``, ``frequency`` and ``count`` of each bin; ``subgroups``: names of groups to
        what :class:`cleft_bundle.metrics.Subgroups` holds.
    """
    metrics = bootstrap(predictions, **asdict(resampling))
    labels, patients = predictions.labels, predictions.patient_numbers()
    counts = {
        name: {
            "positive": int((column == 1).sum()),
            "negative": int((column == 0).sum()),
            "unknown": int(np.isnan(column).sum()),
            "positive_patients": len(np.unique(patients[column == 1])),
        }
        for name, column in zip(predictions.class_names, labels.T, strict=True)
    }
    single = predictions.task == "multiclass"
    return {
        "metrics": {name: as_json(interval) for name, interval in metrics.items()},
        "classes": counts,
        "confusion_matrix": confusion_matrix(predictions.scores, labels).tolist() if single else None,
        "retrieval": None if ranks is None else _retrieval(*ranks, patients, resampling),
        "captions": None if ranks is None else len(ranks[1]),
        "reliability": reliability_as_json(predictions),
        "subgroups": {
            name: _subgroups_as_json(found)
            for name, found in subgroup_metrics(predictions, **asdict(resampling)).items()
        },
    }


def prompt_sensitivity(
    predictions: Predictions, variants: Sequence[np.ndarray], prompts: Sequence[Mapping[str, str]]
) -> dict[str, Any] | None:
    """How much the metrics depend on the words of the prompts.

    Args:
        predictions: of N images, by all prompts together.
        variants: the scores [N, K] of each variant alone.
        prompts: of each variant, name of the class to its prompt.

    Returns:
        ``prompts``, and ``metrics``: names to what :class:`cleft_bundle.metrics.Spread` holds; None without variants.
    """
    if not len(variants):
        return None
    spread = prompt_spread([replace(predictions, scores=scores) for scores in variants])
    return {"prompts": list(prompts), "metrics": {name: asdict(found) for name, found in spread.items()}}


def reliability_as_json(predictions: Predictions) -> dict[str, dict[str, list[float | None]]]:
    """The reliability diagram of each class, or of the highest probability of a multiclass task."""
    return {
        name: {key: _known(values) for key, values in asdict(reliability(*columns)).items()}
        for name, columns in calibrated_columns(predictions).items()
    }


def _known(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _subgroups_as_json(found: Subgroups) -> dict[str, Any]:
    return {
        "values": {
            value: {metric: as_json(interval) for metric, interval in intervals.items()}
            for value, intervals in found.intervals.items()
        },
        "gaps": {
            metric: {"best": gap.best, "worst": gap.worst, "difference": as_json(gap.difference)}
            for metric, gap in found.gaps.items()
        },
        "too_small": found.too_small,
        "n_unknown": found.n_unknown,
    }


def _retrieval(
    image_rank: np.ndarray, text_rank: np.ndarray, patients: np.ndarray, resampling: Resampling
) -> dict[str, dict[str, float | None]]:
    """Recall and median rank; only images have a patient to resample, so that only their recall has intervals."""
    values = retrieval_metrics(image_rank, text_rank)
    resampled = resample(ImageToText(image_rank, patients), patients, resampling.resamples, resampling.seed)
    known = {name: resampled.interval(name, resampling.confidence) for name in resampled.values}
    unknown = Interval(math.nan, math.nan, math.nan, len(image_rank), int(patients.max()) + 1)
    return {name: as_json(known.get(name, unknown)) | {"value": value} for name, value in values.items()}


def as_json(interval: Interval) -> dict[str, Any]:
    """An interval as JSON takes it: None in place of NaN."""
    values = asdict(interval).items()
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values}
