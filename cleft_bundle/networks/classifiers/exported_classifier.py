"""Classifiers in files that hold no settings of this package's networks: TorchScript and torch.export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.backbones import freeze
from cleft_bundle.networks.classifiers.deployed_classifier import fitted, probabilities
from cleft_bundle.networks.protocol import Network
from cleft_bundle.vocabulary import Task

#: Where an exported file describes itself: a property of ONNX files, an extra file of the others.
METADATA = "metadata.json"
_NEEDED = ("class_names", "task", "preprocessing", "operating_point")
_NEAREST_TO_ONE = 1 - 2.0**-25  # halfway from float32's last number below 1: what a score of 1 may have been


class ExportedClassifier(Network):
    """A classifier in an exported file, with the attributes of :class:`cleft_bundle.networks.DeployedClassifier`.

    Args:
        path: the file, for messages.
        settings: what the file says about itself, see :func:`cleft_bundle.packaging.describe`.

    Raises:
        BundleError: where the file does not describe its classes and preprocessing.
    """

    embeds = False
    typicality = None  # it is one of embeddings

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        super().__init__()
        if any(key not in settings for key in _NEEDED):
            raise BundleError(f"{path} does not describe its classes and preprocessing: cleft export writes such")
        self.settings: dict[str, Any] = dict(settings)
        self.class_names: list[str] = self.settings["class_names"]
        self.task: Task = self.settings["task"]
        self.preprocessing: dict[str, Any] = self.settings["preprocessing"]
        self.operating_point: dict[str, Any] = self.settings["operating_point"]
        self.provenance: dict[str, Any] = self.settings.get("provenance", {})
        # files of 0.6.0 don't tell theirs: what is taken for their logits has been calibrated then
        stored = self.settings.get("calibration") or {"temperature": 1.0, "bias": [0.0] * len(self.class_names)}
        self._temperature: float = stored["temperature"]
        self._bias: list[float] = stored["bias"]

    @property
    def calibration(self) -> dict[str, Any] | None:
        """``temperature`` and ``bias``, [K] numbers; None where nothing was fitted.

        Files of 0.6.0 that do not tell theirs have a temperature of 1 and biases of 0, see :meth:`logits`.
        """
        told = "calibration" in self.settings or self.operating_point.get("calibration", "none") == "none"
        return fitted(self._temperature, self._bias) if told else {"temperature": self._temperature, "bias": self._bias}

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] of logits [B, K], in the precision of the logits."""
        return probabilities(logits / self._temperature + torch.as_tensor(self._bias).to(logits), self.task)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Nothing: such a file gives scores alone.

        Raises:
            BundleError: always.
        """
        raise BundleError("an exported classifier gives no embeddings: they need its model.pt or finetuned.pt")

    def raw_logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Nothing, as :meth:`embed`."""
        return self.embed(embedding)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of images [B, 3, H, W], before calibration, for ``multiclass`` up to a constant per image.

        They are won back from probabilities, and so no finer than these. Subclasses whose files know better say it.
        """
        scores = self(image).double().clamp(min=1e-45, max=_NEAREST_TO_ONE)
        calibrated = scores.log() if self.task == "multiclass" else torch.logit(scores)
        return (calibrated - torch.as_tensor(self._bias).to(calibrated)) * self._temperature


class TorchScriptClassifier(ExportedClassifier):
    """A classifier in a TorchScript file.

    Args:
        path: a file that :func:`cleft_bundle.packaging.export_classifier` wrote.

    Raises:
        BundleError: where the file is no TorchScript, or says nothing about its classes and preprocessing.
    """

    def __init__(self, path: str | Path) -> None:
        extra = {METADATA: b""}
        try:
            network = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{path} is no TorchScript: {one_line(error)}") from error
        super().__init__(path, json.loads(extra[METADATA] or "{}"))
        freeze(network)
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] of images [B, 3, H, W]."""
        return self.network(_plain(image))

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K]: files from 0.7.0 on have a method of this name."""
        return self.network.logits(_plain(image)) if hasattr(self.network, "logits") else super().logits(image)


class ProgramClassifier(ExportedClassifier):
    """A classifier in a file of torch.export.

    Args:
        path: a file that :func:`cleft_bundle.packaging.export_classifier` wrote.

    Raises:
        BundleError: where the file is none of torch.export, or says nothing about its classes and preprocessing.
    """

    def __init__(self, path: str | Path) -> None:
        extra = {METADATA: "{}"}
        try:
            network = torch.export.load(path, extra_files=extra).module()
        except (RuntimeError, ValueError, KeyError) as error:
            raise BundleError(f"{path} is no file of torch.export: {one_line(error)}") from error
        super().__init__(path, json.loads(extra[METADATA] or "{}"))
        freeze(network)
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] of images [B, 3, H, W]."""
        return self.network(_plain(image))

    def train(self, mode: bool = True) -> ProgramClassifier:
        """Nothing: the program was exported in evaluation mode, and refuses to be asked."""
        return self


def _plain(image: torch.Tensor) -> torch.Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image
