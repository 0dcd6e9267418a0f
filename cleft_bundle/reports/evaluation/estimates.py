"""The numbers of an evaluation report, of what the classifier answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import (
    METRICS,
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
from cleft_bundle.metrics.classification import CALIBRATION, OBSERVED_EXPECTED, RANKED, THRESHOLDED
from cleft_bundle.reports.evaluation.scored import ScoredImages

#: The metrics of subgroups.
BY_GROUP = ("auroc", "sensitivity", "specificity", "brier", OBSERVED_EXPECTED)


@dataclass(frozen=True)
class Resampling:
    """Settings of the intervals, see :func:`cleft_bundle.metrics.bootstrap`.

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
        if isinstance(self.confidence, bool) or not 0 < self.confidence < 1:
            raise BundleError(f"confidence={self.confidence}: expected a number between 0 and 1, such as 0.95")


def estimates(scored: ScoredImages, resampling: Resampling) -> dict[str, Any]:
    """Compute what a report says of a classifier in numbers, as JSON takes it.

    All of it is about the scores as the classifier answers them, and about its calls: the highest score for
    ``multiclass``, the class's threshold for ``multilabel``, whose classes without one have no figures that need it.

    Args:
        scored: the images.
        resampling: how the intervals come about.

    Returns:
        ``metrics``: names of :func:`cleft_bundle.metrics.classification_metrics` to value, low and high (None where
        there is no interval), n_images and n_patients; ``classes``: names to counts of labels; ``confusion_matrix``
        of a multiclass task, else None; ``reliability``: names of classes, or "highest" for the highest probability of
        a multiclass task, to ``probability``, ``frequency`` and ``count`` of each bin, None where scores are no
        probabilities; ``uncalibrated``: ``metrics`` and ``reliability`` before calibration, or None; ``subgroups``:
        names of groups to what :class:`cleft_bundle.metrics.Subgroups` holds.
    """
    predictions = scored.predictions
    single = predictions.task == "multiclass"
    return {
        "metrics": metrics_of(scored, METRICS, resampling),
        "classes": _label_counts(predictions),
        "confusion_matrix": confusion_matrix(predictions.scores, predictions.labels).tolist() if single else None,
        "reliability": reliability_as_json(predictions) if scored.are_probabilities else None,
        "uncalibrated": _before_calibration(scored, resampling),
        "subgroups": _subgroups(scored, resampling),
    }


def metrics_of(scored: ScoredImages, wanted: Sequence[str], resampling: Resampling) -> dict[str, dict[str, Any]]:
    """Metrics with their intervals, those that need a threshold at the operating point."""
    found: dict[str, Interval] = {}
    for predictions, metrics, limits in _runs(scored, wanted):
        found |= bootstrap(predictions, metrics, **asdict(resampling), thresholds=limits)
    return {name: as_json(found[name]) for name in found}


def _runs(scored: ScoredImages, wanted: Sequence[str]) -> list[tuple[Predictions, list[str], list[float] | float]]:
    """What is computed of which classes at which thresholds: in one go where all classes have one."""
    plain = [
        name
        for name in wanted
        if name in RANKED or (name in (*CALIBRATION, OBSERVED_EXPECTED) and scored.are_probabilities)
    ]
    limited = [name for name in wanted if name in THRESHOLDED]
    called = scored.called()
    if called is None or not limited:
        return [(scored.predictions, plain, 0.5)] if plain else []
    if called[0] is scored.predictions:
        return [(called[0], [*plain, *limited], called[1])]
    runs: list[tuple[Predictions, list[str], list[float] | float]] = [(called[0], limited, called[1])]
    return [(scored.predictions, plain, 0.5), *runs] if plain else runs


def _label_counts(predictions: Predictions) -> dict[str, dict[str, int]]:
    patients = predictions.patient_numbers()
    return {
        name: {
            "positive": int((column == 1).sum()),
            "negative": int((column == 0).sum()),
            "unknown": int(np.isnan(column).sum()),
            "positive_patients": len(np.unique(patients[column == 1])),
        }
        for name, column in zip(predictions.class_names, predictions.labels.T, strict=True)
    }


def _before_calibration(scored: ScoredImages, resampling: Resampling) -> dict[str, Any] | None:
    before = scored.uncalibrated
    if before is None:
        return None
    found = bootstrap(before, CALIBRATION, **asdict(resampling))
    return {
        "metrics": {name: as_json(interval) for name, interval in found.items()},
        "reliability": reliability_as_json(before),
    }


def prompt_sensitivity(
    scored: ScoredImages, variants: Sequence[np.ndarray], prompts: Sequence[Mapping[str, str]]
) -> dict[str, Any] | None:
    """Sensitivity of the ranking of the images to the words of the prompts.

    Args:
        scored: N images, by all prompts together.
        variants: the scores [N, K] of each variant alone, of the scored images.
        prompts: of each variant, name of the class to its prompt.

    Returns:
        ``prompts``, and ``metrics``: names to what :class:`cleft_bundle.metrics.Spread` holds; None without variants.
    """
    if not len(variants):
        return None
    metrics = (*RANKED, "accuracy", "balanced_accuracy") if scored.task == "multiclass" else RANKED
    spread = prompt_spread([replace(scored.predictions, scores=scores) for scores in variants], metrics)
    return {"prompts": list(prompts), "metrics": {name: asdict(found) for name, found in spread.items()}}


def reliability_as_json(predictions: Predictions) -> dict[str, dict[str, list[float | None]]]:
    """The reliability diagram of each class, or of the highest probability of a multiclass task."""
    return {
        name: {key: _known(values) for key, values in asdict(reliability(*columns)).items()}
        for name, columns in calibrated_columns(predictions).items()
    }


def _known(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _subgroups(scored: ScoredImages, resampling: Resampling) -> dict[str, Any]:
    """The metrics of :data:`BY_GROUP` for each value of each group."""
    joined: dict[str, Any] = {}
    for predictions, metrics, limits in _runs(scored, BY_GROUP):
        for group, found in subgroup_metrics(predictions, metrics, **asdict(resampling), thresholds=limits).items():
            part = _subgroups_as_json(found)
            if group not in joined:
                joined[group] = part
                continue
            for value, own in part.pop("values").items():
                joined[group]["values"][value] |= own
            for key, own in part.items():
                if isinstance(own, dict):
                    joined[group][key] |= own
    return joined


def _subgroups_as_json(found: Subgroups) -> dict[str, Any]:
    return {
        "values": {
            value: {metric: as_json(interval) for metric, interval in intervals.items()}
            for value, intervals in found.intervals.items()
        },
        "gaps": {
            metric: {"best": gap.best, "worst": gap.worst, "difference": as_json(gap.difference)}
            | {"p_corrected": None if math.isnan(gap.p_corrected) else gap.p_corrected}
            for metric, gap in found.gaps.items()
        },
        "too_small": found.too_small,
        "n_unknown": found.n_unknown,
        "classes": found.classes,
        "overall": {name: None if math.isnan(value) else value for name, value in found.overall.items()},
    }


def retrieval_as_json(
    image_rank: np.ndarray, text_rank: np.ndarray, patients: np.ndarray, resampling: Resampling
) -> dict[str, dict[str, float | None]]:
    """Recall and median rank; only images have a patient to resample, so that only their recall has intervals."""
    values = retrieval_metrics(image_rank, text_rank)
    resampled = resample(ImageToText(image_rank, patients), patients, resampling.resamples, resampling.seed)
    known = {name: resampled.interval(name, resampling.confidence) for name in resampled.values}
    unknown = Interval(math.nan, math.nan, math.nan, len(image_rank), int(patients.max()) + 1)
    return {name: as_json(known.get(name, unknown)) | {"value": value} for name, value in values.items()}


def as_json(interval: Interval) -> dict[str, Any]:
    """An interval as JSON takes it: None in place of NaN, ``classes`` only for a mean over classes."""
    values = {key: value for key, value in asdict(interval).items() if value != ()}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}
