"""Calibration and thresholds: how an evaluation of a training checkpoint gets them, and what thresholds do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from cleft_bundle.data.item import Item
from cleft_bundle.engines import validation_engine
from cleft_bundle.handlers import ProgressHandler, ZeroShotMetrics
from cleft_bundle.metrics import (
    COVERAGE,
    Calibration,
    Interval,
    Screening,
    apply_thresholds,
    conformal_limits,
    conformal_sets,
    set_coverage,
)
from cleft_bundle.reports.evaluation.estimates import Resampling, as_json
from cleft_bundle.reports.evaluation.scored import ScoredImages, row_order
from cleft_bundle.vocabulary import Task


class Operating:
    """Choose calibration and thresholds as the training does for ``model.pt``.

    Args:
        items: what they are chosen on, of all processes; empty where they are the evaluated images themselves.
        data_loader: this process's share of them; None where they are the evaluated images themselves.
        screening: how they are chosen.
    """

    def __init__(
        self,
        items: Sequence[Item],
        data_loader: DataLoader | None,
        screening: Screening,
    ) -> None:
        self.items = items
        self.data_loader = data_loader
        self.screening = screening
        self.details: dict[str, Any] | None = None

    def gather(self, evaluator: SupervisedEvaluator) -> None:
        """Score the validation images with the network and the class prompts of an evaluator, and no more than that.

        Args:
            evaluator: stays as it is; its inferer is a :class:`cleft_bundle.inferers.ZeroShotInferer`.
        """
        if self.data_loader is None:
            return
        inferer = evaluator.inferer.plain()
        scores = ZeroShotMetrics(list(inferer.prompts), inferer.task)
        scorer = validation_engine(
            text=False,
            device=evaluator.state.device,
            val_data_loader=self.data_loader,
            network=evaluator.network,
            inferer=inferer,
            key_val_metric={"zero_shot_auroc": scores},
            val_handlers=[inferer, ProgressHandler("scoring the validation images")],
            amp=evaluator.amp,
        )
        scorer.run()
        self.details = scorer.state.metric_details["zero_shot_auroc"]

    def choose(
        self, logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], task: Task, items: Sequence[Item]
    ) -> dict[str, Any]:
        """Calibrate the evaluated images.

        Args:
            logits: of the N evaluated images, [N, K].
            labels: of the same images, [N, K]; calibration and thresholds are chosen on them where there are no other
                validation images.
            class_names: names of the K classes.
            task: ``multiclass`` or ``multilabel``.
            items: the N images.

        Returns:
            ``scores`` [N, K], ``thresholds``, ``calibration``, ``conformal`` and ``chosen`` of :class:`ScoredImages`.
        """
        same = self.details is None
        method = self.screening.calibration
        chosen_on, known = logits, labels
        if self.details is not None:
            rows = row_order(self.details["names"], self.items)
            chosen_on, known = self.details["logits"][rows], self.details["label"][rows]
        owners = [item["patient_id"] for item in (items if same else self.items)]
        chosen = self.screening.choose(chosen_on, known, class_names, task, owners)
        calibration = described(chosen.calibration, method if chosen.calibration.n_images else "none", class_names)
        how = {
            "rule": self.screening.rule,
            "target": self.screening.target,
            "on": "these same images" if same else "the validation split",
            "same_images": same,
        }
        return {
            "scores": chosen.calibration(logits),
            "thresholds": dict(chosen.thresholds),
            "calibration": calibration,
            "conformal": conformal_limits(chosen.calibration(chosen_on), known, class_names),
            "chosen": how,
        }


def described(calibration: Calibration, method: str, class_names: Sequence[str]) -> dict[str, Any]:
    """A calibration as reports tell it: ``none`` where nothing was fitted; None for what is not known of the fit."""
    interval = {"low": calibration.low, "high": calibration.high}
    return {
        "method": method,
        "temperature": calibration.temperature,
        "bias": dict(zip(class_names, map(float, calibration.bias), strict=True)),
        "images": calibration.n_images or None,
        **{key: None if math.isnan(value) else value for key, value in interval.items()},
    }


def operating_points(
    scored: ScoredImages, prevalence: float | Mapping[str, float] | None, resampling: Resampling
) -> dict[str, Any]:
    """Report what the thresholds do on the images at hand, as JSON takes it.

    Args:
        scored: the images.
        prevalence: share of positives that PPV and NPV are stated for; None: that of the images.
        resampling: how the intervals come about.

    Returns:
        ``chosen`` and ``calibration`` of the images; ``classes``: names to what
        :class:`cleft_bundle.metrics.OperatingPoint` holds; empty without thresholds.
    """
    points = (
        apply_thresholds(scored.predictions, scored.limits, prevalence, **asdict(resampling)) if scored.limits else {}
    )
    return {
        "chosen": dict(scored.chosen),
        "calibration": dict(scored.calibration),
        "classes": {
            name: {field.name: _plain(getattr(point, field.name)) for field in fields(point)}
            for name, point in points.items()
        },
    }


def conformal(scored: ScoredImages, confidence: float) -> dict[str, Any]:
    """Report what conformal sets do on the images at hand, as JSON takes it.

    Returns:
        ``coverage`` that was asked for; ``size``, the mean number of classes in a set; ``classes``: names to ``limit``
        and ``covered``, the share of the images that have the class whose set has it. Empty where no limit is known.
    """
    if set(scored.conformal) != set(scored.class_names):
        return {}
    found = scored.predictions
    sets = conformal_sets(found.scores, scored.class_names, scored.conformal)
    shares = set_coverage(sets, found.labels, list(found.patients), confidence)
    classes = {
        name: {"limit": scored.conformal[name], "covered": as_json(share)}
        for name, share in zip(scored.class_names, shares, strict=True)
        if share.n_images
    }
    return {"coverage": COVERAGE, "size": float(sets.sum(axis=1).mean()), "classes": classes}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return as_json(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
