"""Calibration and screening thresholds: chosen on validation images, reported on the evaluated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from cleft_bundle.evaluation.figures import Resampling, as_json, reliability_as_json, row_order
from cleft_bundle.metrics import Interval, Predictions, Screening, apply_thresholds, bootstrap

CALIBRATED = ("auroc", "brier", "ece")

Item = dict[str, Any]


class Operating:
    """Choose calibration and thresholds, and try them.

    Args:
        items: what they are chosen on, of all processes.
        data_loader: this process's share of them; None where they are the evaluated images themselves.
        screening: how they are chosen.
        prevalence: share of positives that PPV and NPV are stated for; None: that of the evaluated images.
    """

    def __init__(
        self,
        items: Sequence[Item],
        data_loader: DataLoader | None,
        screening: Screening,
        prevalence: float | None = None,
    ) -> None:
        self.items = items
        self.data_loader = data_loader
        self.screening = screening
        self.prevalence = prevalence
        self.details: dict[str, Any] | None = None

    def gather(self, evaluator: SupervisedEvaluator) -> None:
        """Let an evaluator score the validation images, before it runs on its own ones."""
        if self.data_loader is None:
            return
        own, batches = evaluator.data_loader, evaluator.state.epoch_length
        evaluator.data_loader, evaluator.state.epoch_length = self.data_loader, len(self.data_loader)
        evaluator.run()
        evaluator.data_loader, evaluator.state.epoch_length = own, batches
        self.details = evaluator.state.metric_details[evaluator.state.key_metric_name]

    def figures(self, predictions: Predictions, logits: np.ndarray, resampling: Resampling) -> dict[str, Any]:
        """Report what was chosen on the evaluated images, as JSON takes it.

        Args:
            predictions: of the N evaluated images.
            logits: of the same images, [N, K].
            resampling: how the intervals come about.

        Returns:
            ``rule`` and ``target``; ``same_images``, whether they were chosen on the evaluated images; ``calibration``
            (``method``, ``temperature`` and ``bias`` by class); ``classes``: names to what
            :class:`cleft_bundle.metrics.OperatingPoint` holds; ``calibrated``: ``metrics`` and ``reliability`` of the
            calibrated scores, None on the same images, on which they would be too good.
        """
        chosen_on, labels = logits, predictions.labels
        if self.details is not None:
            rows = row_order(self.details["names"], self.items)
            chosen_on, labels = self.details["logits"][rows], self.details["label"][rows]
        chosen = self.screening.choose(chosen_on, labels, predictions.class_names, predictions.task)
        calibrated = replace(predictions, scores=chosen.calibration(logits))
        points = apply_thresholds(calibrated, chosen.thresholds, self.prevalence, **asdict(resampling))
        names = predictions.class_names
        return {
            "rule": self.screening.rule,
            "target": self.screening.target,
            "same_images": self.details is None,
            "calibration": {
                "method": self.screening.calibration,
                "temperature": chosen.calibration.temperature,
                "bias": dict(zip(names, chosen.calibration.bias, strict=True)),
            },
            "classes": {
                name: {field.name: _plain(getattr(point, field.name)) for field in fields(point)}
                for name, point in points.items()
            },
            "calibrated": None if self.details is None else {
                "metrics": {
                    name: as_json(interval)
                    for name, interval in bootstrap(calibrated, CALIBRATED, **asdict(resampling)).items()
                },
                "reliability": reliability_as_json(calibrated),
            },
        }  # fmt: skip


def _plain(value: Interval | float) -> Any:
    if isinstance(value, Interval):
        return as_json(value)
    return None if math.isnan(value) else value
