"""Inference on batches as they are read."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer


class ReadableInferer(SimpleInferer):
    """MONAI's SimpleInferer, which passes over a batch whose files were all unreadable, and divides one on the CPU.

    Args:
        cpu_images: at most so many images at once on the CPU, where more would take memory and save no time.
    """

    def __init__(self, cpu_images: int = 4) -> None:
        super().__init__()
        self.cpu_images = cpu_images

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Apply the network.

        Args:
            inputs: images [B, 3, H, W] of :func:`cleft_bundle.data.collate_readable`; B may be 0.
            network: the classifier.
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            the network's output [B, K], or an empty tensor [0, 0].
        """
        if len(inputs) == 0:
            return inputs.new_zeros(0, 0)
        parts = inputs.split(self.cpu_images) if inputs.device.type == "cpu" else (inputs,)
        return torch.cat([network(part, *args, **kwargs) for part in parts])
