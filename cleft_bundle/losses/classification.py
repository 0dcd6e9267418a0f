"""The zero-shot classification loss of prompt fine-tuning."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.errors import require_one_of


class ClassificationLoss(nn.Module):
    """Cross-entropy of the zero-shot scores, or binary cross-entropy of each finding.

    Args:
        task: ``multiclass`` (one class an image) or ``multilabel`` (any number).

    Raises:
        BundleError: where ``task`` is neither.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024, section on prompt fine-tuning.
    """

    def __init__(self, task: Literal["multiclass", "multilabel"]) -> None:
        super().__init__()
        require_one_of("task", task, ("multiclass", "multilabel"))
        self.task = task

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss of one batch.

        Args:
            logits: float tensor [B, K].
            label: float tensor [B, K] of 1, 0 and NaN (unknown, left out).

        Returns:
            the loss, a scalar tensor.
        """
        known = ~torch.isnan(label)
        if self.task == "multiclass":
            rows = known.all(dim=1)
            return F.cross_entropy(logits[rows], label[rows].argmax(dim=1))
        return F.binary_cross_entropy_with_logits(logits[known], label[known])
