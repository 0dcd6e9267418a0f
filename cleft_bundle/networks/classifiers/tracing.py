"""Classifiers as TorchScript, for which they are traced: a vision transformer's own code does not compile."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from cleft_bundle.networks.classifiers.deployed_classifier import DeployedClassifier


def example_images(classifier: DeployedClassifier) -> torch.Tensor:
    """Two images [2, 3, S, S] of noise in the classifier's size: a batch of one would become a constant of a graph."""
    side = classifier.preprocessing["image_size"]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, side, side, generator=generator).to(classifier.temperature.device)


def trace(classifier: DeployedClassifier) -> torch.jit.ScriptModule:
    """Trace a classifier by its methods ``forward`` and ``logits``, for any number of images of its size."""
    example = example_images(classifier)
    with warnings.catch_warnings(), torch.no_grad():
        # the side of the image becomes a constant, as it may
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return torch.jit.trace_module(classifier, {"forward": example, "logits": example})


class Scriptable(nn.Module):
    """Trace that :func:`torch.jit.script` compiles in place of a classifier."""

    def __init__(self, classifier: DeployedClassifier) -> None:
        super().__init__()
        self.traced = trace(classifier)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] of images [B, 3, S, S]."""
        return self.traced(image)

    @torch.jit.export
    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of images [B, 3, S, S], before calibration."""
        return self.traced.logits(image)
