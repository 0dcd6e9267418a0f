"""Zero-shot and retrieval metrics as an ignite metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric

from cleft_bundle.distributed import gather_uneven
from cleft_bundle.metrics import Predictions, classification_metrics, retrieval_metrics
from cleft_bundle.networks.classifier import Task

METRICS = ("auroc", "average_precision", "accuracy", "balanced_accuracy")
KEYS = ("scores", "image_embedding", "text_embedding", "label", "caption_id")


class ZeroShotMetrics(Metric):
    """Gather the scores of an evaluation and compute its metrics when the epoch ends.

    As the evaluator's key metric its value is the macro AUROC, NaN where it is not defined. The AUROC of each class,
    the means over classes and the accuracies of :func:`cleft_bundle.metrics.classification_metrics`, and all of
    :func:`cleft_bundle.metrics.retrieval_metrics`, are put beside it into ``engine.state.metrics``; the scores
    themselves go to ``engine.state.metric_details[name]`` for the pictures.

    Args:
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
    """

    def __init__(self, class_names: Sequence[str], task: Task) -> None:
        self.class_names = list(class_names)
        self.task = task
        super().__init__(output_transform=lambda output: output)

    def reset(self) -> None:
        """Forget the last evaluation."""
        self._rows: dict[str, list[torch.Tensor]] = {}

    def iteration_completed(self, engine: Engine) -> None:
        """Take the scores of one batch from the engine's state."""
        output, batch = engine.state.output, engine.state.batch
        self.update({**output["pred"], "label": batch["label"], "caption_id": batch["caption_id"]})

    def update(self, output: dict[str, torch.Tensor]) -> None:
        """Take one batch: ``scores`` and ``label`` [B, K], ``caption_id`` [B] and, for retrieval, embeddings [B, D]."""
        for key in KEYS:
            if key in output:
                self._rows.setdefault(key, []).append(output[key].detach().cpu())

    def compute(self) -> dict[str, np.ndarray]:
        """Join the batches, and those of all processes.

        Returns:
            the arrays of :meth:`update` over all N images.
        """
        return {key: gather_uneven(torch.cat(rows)).numpy() for key, rows in self._rows.items()}

    def completed(self, engine: Engine, name: str) -> None:
        """Compute the metrics and write them to the engine's state."""
        arrays = self.compute()
        numbers = [f"row {index}" for index in range(len(arrays["scores"]))]
        predictions = Predictions(arrays["scores"], arrays["label"], self.class_names, self.task, numbers, numbers)
        metrics = classification_metrics(predictions, metrics=METRICS)
        engine.state.metrics[name] = metrics.pop("auroc_macro", float("nan"))
        kept = {key: value for key, value in metrics.items() if "/" not in key or key.startswith("auroc/")}
        engine.state.metrics.update(kept)
        if "text_embedding" in arrays:
            engine.state.metrics.update(
                retrieval_metrics(arrays["image_embedding"], arrays["text_embedding"], arrays["caption_id"])
            )
        details: dict[str, Any] = {"scores": arrays["scores"], "label": arrays["label"]}
        engine.state.metric_details[name] = details
