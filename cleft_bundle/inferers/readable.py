"""Inference on batches of which nothing may be readable."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer


class ReadableInferer(SimpleInferer):
    """MONAI's SimpleInferer, which passes over a batch whose files were all unreadable."""

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
        return super().__call__(inputs, network, *args, **kwargs)
