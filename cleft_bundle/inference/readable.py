"""Inference on batches as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
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
    """

    scores: torch.Tensor
    logits: torch.Tensor
    embeddings: torch.Tensor | None = None


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
    rows, logits = [], []
    with torch.autocast(image.device.type, enabled=False):
        for part in parts:
            if embeddings:
                rows.append(network.embed(part))
                logits.append(network.raw_logits(rows[-1]))
            else:
                logits.append(network.logits(part))
    raw = torch.cat(logits).cpu().double()
    return Predicted(network.calibrated(raw), raw, torch.cat(rows).float().cpu() if embeddings else None)


class ReadableInferer(SimpleInferer):
    """MONAI's SimpleInferer, which passes over a batch whose files were all unreadable, and divides one on the CPU.

    Args:
        cpu_images: at most so many images at once on the CPU.
    """

    def __init__(self, cpu_images: int = CPU_IMAGES) -> None:
        super().__init__()
        self.cpu_images = cpu_images

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
        if len(inputs) == 0:
            return inputs.new_zeros(0, 0)
        return predict(network, inputs, cpu_images=self.cpu_images).scores
