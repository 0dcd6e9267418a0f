"""The base of classifiers that leave a training: raw logits, calibration, operating point and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cleft_bundle.networks.classifiers.tracing import Scriptable
from cleft_bundle.networks.classifiers.typicality import Typicality
from cleft_bundle.networks.protocol import Network
from cleft_bundle.vocabulary import Task


def probabilities(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Class probabilities [B, K] of logits [B, K]: softmax over classes, or a sigmoid for each."""
    return logits.softmax(dim=1) if task == "multiclass" else logits.sigmoid()


class DeployedClassifier(Network):
    """A classifier of images with its calibration; subclasses say how an image becomes logits.

    Args:
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
        preprocessing: ``image_size`` in pixels, and ``transforms``, the components that prepare an image, see
            :func:`cleft_bundle.transforms.build_transforms`.
        operating_point: what :meth:`calibrate` was given, but for temperature and bias.
        provenance: how the classifier came about, as JSON-able values: ``run``, the ``id`` and ``name`` of the run
            that wrote it, ``trained_on``, its patients by role (:meth:`cleft_bundle.checkpoints.TrainedOn.state_dict`),
            and ``seen``, what its validation images were like (:func:`cleft_bundle.engines.seen.describe_seen`). Files
            before version 0.7.0 have none.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        task: Task,
        preprocessing: Mapping[str, Any] | None = None,
        operating_point: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.task: Task = task
        self.preprocessing = dict(preprocessing or {})
        self.operating_point = dict(operating_point or {"thresholds": {}})
        self.provenance = dict(provenance or {})
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("bias", torch.zeros(len(self.class_names)))
        self.temperature: torch.Tensor
        self.bias: torch.Tensor
        #: What validation images looked like; None where that is not known, as of files before version 0.12.0.
        self.typicality: Typicality | None = None

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W], prepared as :attr:`preprocessing` says: rows [B, D] for :meth:`classify`."""
        raise NotImplementedError

    def raw_logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of embeddings [B, D], before calibration."""
        raise NotImplementedError

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images.

        Args:
            image: float tensor [B, 3, H, W], preprocessed as :attr:`preprocessing` says.

        Returns:
            probabilities [B, K] in the order of :attr:`class_names`: they sum to one over the classes for
            ``multiclass``, and each stands for itself for ``multilabel``.
        """
        return self.classify(self.embed(image))

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of images [B, 3, H, W], before calibration: what :meth:`calibrated` takes."""
        return self.raw_logits(self.embed(image))

    def classify(self, embedding: torch.Tensor) -> torch.Tensor:
        """Score images by their embeddings [B, D]: the second half of :meth:`forward`."""
        return self.calibrated(self.raw_logits(embedding))

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] of logits [B, K], in the precision of the logits."""
        return probabilities(logits / self.temperature.to(logits) + self.bias.to(logits), self.task)

    def calibrate(
        self, temperature: float, bias: Sequence[float], thresholds: Mapping[str, float], **chosen_by: Any
    ) -> None:
        """Store what was chosen on validation images, see :class:`cleft_bundle.metrics.Screening`.

        Args:
            temperature: logits are divided by it.
            bias: added to the logit of each class, [K].
            thresholds: names of classes to the calibrated score from which on an image is called positive; classes
                for which none could be chosen are absent.
            chosen_by: how they were chosen, as JSON-able values.
        """
        self.temperature = torch.tensor(temperature, dtype=torch.float32)
        self.bias = torch.tensor(list(bias), dtype=torch.float32)
        self.operating_point = {"thresholds": dict(thresholds), **chosen_by}

    def __prepare_scriptable__(self) -> nn.Module:
        """Traced form that :func:`torch.jit.script` compiles, as transformers' own code can't be scripted."""
        return Scriptable(self)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the classifier in its file, as JSON-able values."""
        raise NotImplementedError

    @property
    def calibration(self) -> dict[str, Any] | None:
        """``temperature`` and ``bias``, [K] numbers; None where nothing was fitted."""
        return fitted(float(self.temperature), self.bias.tolist())


def fitted(temperature: float, bias: Sequence[float]) -> dict[str, Any] | None:
    """A calibration as ``temperature`` and ``bias``; None where it changes nothing, as where none was fitted."""
    return {"temperature": temperature, "bias": list(bias)} if temperature != 1 or any(bias) else None
