"""The deployable classifier in the form in which its image tower and its head are trained on labels."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cleft_bundle.networks.classifiers.zero_shot import ZeroShotClassifier
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.protocol import Network


class TrainableClassifier(Network):
    """Logits of a classifier, whose class weights and biases are parameters here.

    It starts where the classifier is: with its calibration, so that the softmax or sigmoid of the logits are its
    probabilities. The whole image tower is trained.

    Args:
        classifier: such as ``model.pt`` holds; it stays as it is.
    """

    checkpoint = "deployable"

    def __init__(self, classifier: ZeroShotClassifier) -> None:
        super().__init__()
        self._start = [copy.deepcopy(classifier)]  # in a list, so that its tensors are none of this network
        self.image_encoder = copy.deepcopy(classifier.image_encoder).requires_grad_(True)
        self.weights, self.bias = (nn.Parameter(part.detach().clone()) for part in classifier.calibrated_head())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify images [B, 3, H, W], prepared as the classifier says.

        Returns:
            logits [B, K].
        """
        return self.embed(image) @ self.weights.T + self.bias

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, D] of images [B, 3, H, W]."""
        return self.image_encoder(image)

    @property
    def tower(self) -> ImageEncoder | None:
        """The image tower whose projected tokens :meth:`embed` averages, if there is one."""
        return self.image_encoder.tower

    @property
    def patch_size(self) -> int | None:
        """Patch size of the image tower, in pixels."""
        return self.image_encoder.patch_size

    def calibrated_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Head that is learnt."""
        return self.weights, self.bias

    def deployable(self) -> ZeroShotClassifier:
        """A classifier of the same classes and preprocessing with what has been learnt, in evaluation mode."""
        classifier = copy.deepcopy(self._start[0])
        classifier.image_encoder.load_state_dict(self.image_encoder.state_dict())
        classifier.set_head(self.weights, self.bias)
        return classifier.eval()
