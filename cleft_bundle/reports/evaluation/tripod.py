"""Figures that reporting guidelines want besides: calibration lines, decision curves, by patient, study and breast.

Source: Collins et al., "TRIPOD+AI statement", BMJ 2024.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.metrics import Predictions, by_unit, calibrated_columns, calibration_line, decision_curve
from cleft_bundle.reports.evaluation.estimates import Resampling, as_json, metrics_of
from cleft_bundle.reports.evaluation.scored import ScoredImages

#: The metrics of units.
BY_UNIT = ("auroc", "sensitivity", "specificity", "accuracy")


def calibration_lines(scored: ScoredImages, resampling: Resampling) -> dict[str, dict[str, Any]]:
    """Slope and intercept of each reliability diagram, with intervals by patient.

    Returns:
        names of classes, or "highest", to ``slope``, ``intercept`` and ``in_the_large``; empty where scores are no
        probabilities.
    """
    if not scored.are_probabilities:
        return {}
    found = {}
    for name, (probabilities, truth) in calibrated_columns(scored.predictions).items():
        known = ~np.isnan(truth)
        if not known.any():
            continue
        line = calibration_line(probabilities, truth, scored.predictions.patients, resampling.confidence)
        found[name] = {key: as_json(getattr(line, key)) for key in ("slope", "intercept", "in_the_large")}
    return found


def decision_curves(scored: ScoredImages) -> dict[str, dict[str, list[float]]]:
    """Net benefit of each class that has both sides.

    Returns:
        names of classes to ``threshold``, ``net_benefit`` and ``treat_all``; empty where scores are no probabilities.
    """
    if not scored.are_probabilities:
        return {}
    predictions = scored.predictions
    found = {}
    for name, scores, labels in zip(predictions.class_names, predictions.scores.T, predictions.labels.T, strict=True):
        if (labels == 1).any() and (labels == 0).any():
            curve = decision_curve(scores, labels)
            found[name] = {
                "threshold": curve.thresholds.tolist(),
                "net_benefit": curve.model.tolist(),
                "treat_all": curve.treat_all.tolist(),
            }
    return found


def units(scored: ScoredImages, how: Literal["max", "mean"], resampling: Resampling) -> dict[str, dict[str, Any]]:
    """The figures of patients, studies and breasts, where some of these have several images.

    Args:
        scored: the images.
        how: a unit's score is the ``max`` or the ``mean`` of its images.
        resampling: how the intervals come about.

    Returns:
        ``patient``, ``study`` and ``breast``, as far as they are known and not the same as an image or as each other,
        to ``count``, ``images`` and ``metrics``.
    """
    items, predictions = scored.scored_items, scored.predictions
    found: dict[str, dict[str, Any]] = {}
    seen: list[list[Any]] = []
    for name, names in _units(items).items():
        known = [one for one in names if one is not None]
        numbers = np.unique([str(one) for one in known], return_inverse=True)[1].tolist() if known else []
        if len(set(numbers)) == len(known) or [names.count(None), *numbers] in seen:
            continue
        seen.append([names.count(None), *numbers])
        joined = by_unit(predictions, names, how)
        found[name] = {
            "count": len(joined),
            "images": len(known),
            "metrics": metrics_of(_of_units(scored, joined), BY_UNIT, resampling),
        }
    return found


def _units(items: list[Item]) -> dict[str, list[Any]]:
    sides = [(item["patient_id"], item["laterality"]) if item.get("laterality") else None for item in items]
    breasts = [one if item.get("density") or item.get("view") in ("CC", "MLO") else None
               for one, item in zip(sides, items, strict=True)]  # fmt: skip
    return {
        "patient": [item["patient_id"] for item in items],
        "study": [item.get("study_id") for item in items],
        "breast": breasts,
    }


def _of_units(scored: ScoredImages, joined: Predictions) -> ScoredImages:
    """The units in the place of the images."""
    items = [
        {"name": str(name), "patient_id": patient} for name, patient in zip(joined.names, joined.patients, strict=True)
    ]
    return replace(
        scored,
        scores=joined.scores,
        labels=joined.labels,
        items=cast(list[Item], items),
        errors=(),
        logits=None,
        left_out={},
    )
