"""Heat maps of a classifier's findings over the pixels of the file that was scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import Compose

from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.networks.heat_maps import Method, finding_directions, pixel_map
from cleft_bundle.transforms import OriginalPixels


class HeatMaps:
    """Map onto the pixels of an image what speaks for a finding of a classifier.

    Args:
        network: the classifier.
        transforms: those that prepare its images, the reader first.
        method: of :func:`cleft_bundle.networks.heat_maps.heat_map`.
    """

    def __init__(self, network: ZeroShotClassifier, transforms: Compose, method: Method = "attention") -> None:
        self.network = network
        self.method: Method = method
        self.directions = finding_directions(network.class_names, network.class_weights)
        self.load, *others = transforms.flatten().transforms
        self._chain = OriginalPixels(others)

    def __call__(self, loaded: Mapping[str, Any], finding: str) -> torch.Tensor:
        """Make one heat map.

        Args:
            loaded: an item as :attr:`load` gives it.
            finding: one of :attr:`directions`.

        Returns:
            float [H, W] on the CPU, over the pixels of the file: higher where the evidence is.
        """
        prepared, trace = self._chain.prepare(loaded)
        image = torch.as_tensor(prepared["image"])[None].to(self.network.class_weights.device)
        heat = pixel_map(self.network, image, self.directions[finding][None], self.method)[0]
        return self._chain.restore(heat, trace)[0]
