"""Inference with a classifier of images inside MONAI's evaluator."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer

from cleft_bundle.networks.protocol import Network


class LogitsInferer(Inferer):
    """Hand the logits of a classifier to :class:`cleft_bundle.handlers.ZeroShotMetrics`."""

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Score images [B, 3, H, W].

        Returns:
            ``logits`` [B, K].
        """
        return {"logits": network(inputs, *args, **kwargs)}
