"""Zero-shot and retrieval metrics as an ignite metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric

from cleft_bundle.distributed import gather_lists, gather_uneven
from cleft_bundle.metrics import (
    Predictions,
    classification_metrics,
    retrieval_chance,
    retrieval_metrics,
    retrieval_ranks,
)
from cleft_bundle.networks.classifiers.zero_shot import probabilities
from cleft_bundle.vocabulary import Task

METRICS = ("auroc", "average_precision", "accuracy", "balanced_accuracy")
KEYS = ("logits", "variant_logits", "image_embedding", "text_embedding", "label", "caption_id")


class ZeroShotMetrics(Metric):
    """Gather the scores of an evaluation and compute its metrics when the epoch ends.

    As the evaluator's key metric its value is the macro AUROC, NaN where it is not defined. The AUROC of each class,
    the means over classes and the accuracies of :func:`cleft_bundle.metrics.classification_metrics`, and all of
    :func:`cleft_bundle.metrics.retrieval_metrics`, are put beside it into ``engine.state.metrics``. What they were
    computed from goes to ``engine.state.metric_details[name]`` for pictures and reports: ``class_names`` (list of K),
    ``names`` (list of N), ``patients`` (list of N, None where the batches have no ``patient_id``), ``logits``,
    ``scores`` (probabilities) and ``label`` [N, K], as :class:`Predictions` keeps it; where there are any,
    ``embeddings`` [N, D] of the images,
    ``variant_scores`` [N, V, K] of single prompts; for retrieval, ``image_rank`` [N] and ``text_rank`` [M], see
    :func:`cleft_bundle.metrics.retrieval_ranks`, and ``retrieval_chance``, the recall of a network that knows nothing.

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
        self._names: list[str] = []
        self._patients: list[str] = []

    def iteration_completed(self, engine: Engine) -> None:
        """Take the scores of one batch from the engine's state."""
        output, batch = engine.state.output, engine.state.batch
        known = [key for key in ("name", "patient_id", "label", "caption_id") if key in batch]
        self.update({**output["pred"], **{key: batch[key] for key in known}})

    def update(self, output: dict[str, Any]) -> None:
        """Take one batch: ``name``, list of B; ``logits`` and ``label`` [B, K], ``caption_id`` [B]; embeddings [B, D].

        Without embeddings there are no retrieval metrics; ``patient_id``, list of B, and ``variant_logits`` [B, V, K]
        need not be there either.
        """
        self._names += output["name"]
        self._patients += output.get("patient_id", [])
        for key in KEYS:
            if key in output:
                self._rows.setdefault(key, []).append(output[key].detach().cpu())

    def compute(self) -> dict[str, Any]:
        """Join the batches, and those of all processes.

        Returns:
            the arrays of :meth:`update` over all N images, ``names`` and ``patients``.
        """
        arrays = {key: gather_uneven(torch.cat(rows)).numpy() for key, rows in self._rows.items()}
        names, patients = gather_lists(self._names), gather_lists(self._patients)
        return {**arrays, "names": names, "patients": patients if len(patients) == len(names) else None}

    def completed(self, engine: Engine, name: str) -> None:
        """Compute the metrics and write them to the engine's state."""
        gathered = self.compute()
        names = gathered["names"]
        scores = self._probabilities(gathered["logits"])
        predictions = Predictions(scores, gathered["label"], self.class_names, self.task, names, names)
        metrics = classification_metrics(predictions, metrics=METRICS)
        engine.state.metrics[name] = metrics.pop("auroc_macro", float("nan"))
        kept = {key: value for key, value in metrics.items() if "/" not in key or key.startswith("auroc/")}
        engine.state.metrics.update(kept)
        details = {
            "class_names": self.class_names,
            "names": names,
            "patients": gathered["patients"],
            "logits": gathered["logits"],
            "label": predictions.labels,
            "scores": scores,
        }
        if "image_embedding" in gathered:
            details["embeddings"] = gathered["image_embedding"]
        if "variant_logits" in gathered:
            details["variant_scores"] = self._probabilities(gathered["variant_logits"])
        if "text_embedding" in gathered:
            ranks = retrieval_ranks(*(gathered[key] for key in ("image_embedding", "text_embedding", "caption_id")))
            engine.state.metrics.update(retrieval_metrics(*ranks))
            details |= zip(("image_rank", "text_rank"), ranks, strict=True)
            details["retrieval_chance"] = retrieval_chance(gathered["caption_id"])
        engine.state.metric_details[name] = details

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities [..., K] in double precision, in which sure ones do not become equal."""
        rows = torch.from_numpy(logits).double()
        return probabilities(rows.flatten(0, -2), self.task).reshape(rows.shape).numpy()
