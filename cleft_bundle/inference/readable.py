"""Inference on batches as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import SimpleInferer

from cleft_bundle.networks import DeployedClassifier, ExportedClassifier

#: At most so many images at once on the CPU, where more would take memory and save no time.
CPU_IMAGES = 4


@dataclass(frozen=True)
class Predicted:
    """Result of :func:`predict` for B images, on the CPU.

    Args:
        scores: float64 [B, K], calibrated probabilities. In double precision, sure ones do not become equal.
        logits: float64 [B, K], before calibration.
        embeddings: float32 [B, D], or None.
        typicality: float64 [B], see :class:`cleft_bundle.networks.classifiers.typicality.Typicality`; None where the
            classifier does not know it.
    """

    scores: torch.Tensor
    logits: torch.Tensor
    embeddings: torch.Tensor | None = None
    typicality: torch.Tensor | None = None


def predict(
    network: DeployedClassifier | ExportedClassifier,
    image: torch.Tensor,
    embeddings: bool = False,
    cpu_images: int = CPU_IMAGES,
) -> Predicted:
    """Score images that have been prepared: the one way from a batch to scores.

    Args:
        network: the classifier, in evaluation mode.
        image: float tensor [B, 3, H, W] on the network's device, B at least 1. Half precision plays no part, whatever
            surrounds the call.
        embeddings: return embeddings as well, for which a :class:`DeployedClassifier` is needed.
        cpu_images: at most so many images at once on the CPU.

    Raises:
        BundleError: where embeddings are asked for and the network has none.
    """
    parts = image.split(cpu_images) if image.device.type == "cpu" else (image,)
    rows, logits, typical = [], [], []
    with torch.autocast(image.device.type, enabled=False):
        for part in parts:
            if embeddings or network.typicality is not None:
                rows.append(network.embed(part))
                logits.append(network.raw_logits(rows[-1]))
                typical += [] if network.typicality is None else [network.typicality(rows[-1]).cpu()]
            else:
                logits.append(network.logits(part))
    raw = torch.cat(logits).cpu().double()
    embedded = torch.cat(rows).float().cpu() if embeddings else None
    return Predicted(network.calibrated(raw), raw, embedded, torch.cat(typical) if typical else None)


class ReadableInferer(SimpleInferer):
    """MONAI's SimpleInferer, which passes over a batch whose files were all unreadable, and divides one on the CPU.

    Among the evaluator's handlers, before those that write, it hands on the images' typicality.

    Args:
        cpu_images: at most so many images at once on the CPU.
    """

    def __init__(self, cpu_images: int = CPU_IMAGES) -> None:
        super().__init__()
        self.cpu_images = cpu_images
        self._typicality: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Put ``typicality`` [B] into the engine's output, where the classifier knows it, for the handlers behind."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)

    def _add(self, engine: Engine) -> None:
        if self._typicality is not None:
            engine.state.output["typicality"] = self._typicality

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply a classifier by :func:`predict`.

        Args:
            inputs: images [B, 3, H, W] of :func:`cleft_bundle.data.collate_readable`; B may be 0.
            network: the classifier.
            args: not used.
            kwargs: not used.

        Returns:
            scores, float64 [B, K] on the CPU, or an empty tensor [0, 0].
        """
        self._typicality = None
        if len(inputs) == 0:
            return inputs.new_zeros(0, 0)
        found = predict(network, inputs, cpu_images=self.cpu_images)
        self._typicality = found.typicality
        return found.scores
