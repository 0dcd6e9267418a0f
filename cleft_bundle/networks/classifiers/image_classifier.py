"""An image tower with a linear head of its own, trained on labels: no prompts, no language model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cleft_bundle.networks.classifiers.deployed_classifier import DeployedClassifier
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.protocol import Adapted, Network
from cleft_bundle.vocabulary import Task


class ImageClassifier(Network):
    """Logits from the pooled features of an image tower, all of whose backbone is trained, or else its adapters.

    The tower's projection into the space shared with text takes no part; it stays as it is.

    Args:
        image_encoder: the tower.
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
        preprocessing: settings of the deterministic transforms, see
            :class:`cleft_bundle.networks.DeployedClassifier`.
        seed: of the head's random weights.
        trained: names to sizes of the parameters that were trained in a tower whose adapters have been merged; None
            where the whole tower was trained, or is to be.
    """

    checkpoint = "finetuned"

    def __init__(
        self,
        image_encoder: ImageEncoder,
        class_names: Sequence[str],
        task: Task,
        preprocessing: Mapping[str, Any] | None = None,
        seed: int = 0,
        trained: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_encoder.projection.requires_grad_(False)
        self.trained = dict(trained) if trained is not None else None
        if image_encoder.adapted:
            named = image_encoder.backbone.named_parameters(prefix="image_encoder.backbone")
            self.trained = {name: p.numel() for name, p in named if p.requires_grad or image_encoder.peft.keeps(name)}
        else:
            image_encoder.backbone.requires_grad_(True)
        self.class_names = list(class_names)
        self.task: Task = task
        self.preprocessing = dict(preprocessing or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(image_encoder.width, len(self.class_names))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify images.

        Args:
            image: float tensor [B, 3, H, W], preprocessed as :attr:`preprocessing` says.

        Returns:
            logits [B, K] in the order of :attr:`class_names`.
        """
        return self.head(self.embed(image))

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Pooled features [B, width of the tower] of images [B, 3, H, W], before the head."""
        return self.image_encoder.features(image)

    @property
    def patch_size(self) -> int | None:
        """Patch size of the tower, in pixels."""
        return self.image_encoder.patch_size

    @property
    def adapted(self) -> dict[str, Adapted]:
        """Those of the tower."""
        return self.image_encoder.adapted

    @property
    def facts(self) -> dict[str, str]:
        """``image_peft``, the name of the method by which the tower is adapted."""
        return {"image_peft": self.image_encoder.peft.name}

    def penalty(self) -> torch.Tensor | float:
        """Term that the adapters of the tower add to the training loss."""
        return self.image_encoder.penalty()

    def merged(self) -> ImageClassifier:
        """This network with its adapters in the weights of the tower: a copy, or itself where there are none."""
        if not self.adapted:
            return self
        network = copy.copy(self)
        network._modules = {**self._modules, "image_encoder": self.image_encoder.merged()}
        return network

    @property
    def settings(self) -> dict[str, Any]:
        """All that is needed to build this network again, adapters merged, as JSON-able values."""
        return {
            **({"trained": self.trained} if self.trained is not None else {}),
            "class_names": self.class_names,
            "task": self.task,
            "preprocessing": self.preprocessing,
            "image_encoder": self.image_encoder.settings,
        }


class FinetunedClassifier(DeployedClassifier):
    """The deployable form of an :class:`ImageClassifier`: probabilities in place of logits, with a calibration.

    Args:
        network: the trained classifier, whose tower and head it shares.
        operating_point: see :class:`cleft_bundle.networks.DeployedClassifier`.
        provenance: see there.
    """

    def __init__(
        self,
        network: ImageClassifier,
        operating_point: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network.class_names, network.task, network.preprocessing, operating_point, provenance)
        self.network = network

    @property
    def image_encoder(self) -> ImageEncoder:
        """The tower, of which the projection takes no part."""
        return self.network.image_encoder

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W]: pooled features [B, width of the tower], of no fixed length."""
        return self.network.embed(image)

    @property
    def patch_size(self) -> int | None:
        """Patch size of the tower, in pixels."""
        return self.network.patch_size

    def calibrated_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [K, width of the tower] and biases [K] that give the calibrated logits of features."""
        linear, temperature = self.network.head, self.temperature
        return linear.weight / temperature, linear.bias / temperature + self.bias

    def raw_logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of features by the linear head."""
        return self.network.head(embedding)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of :attr:`ImageClassifier.settings`, with operating point and provenance."""
        return {
            **self.network.settings,
            "operating_point": self.operating_point,
            "provenance": self.provenance,
        }
