"""The classification loss of prompt fine-tuning, of fine-tuning and of the linear head."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from cleft_bundle.data.usable_labels import class_numbers, usable_rows
from cleft_bundle.distributed import world_size
from cleft_bundle.errors import require_one_of
from cleft_bundle.vocabulary import Task


class ClassificationLoss(nn.Module):
    """Cross-entropy of the zero-shot scores, or binary cross-entropy of each finding, where the label is usable.

    The mean is taken over what :mod:`cleft_bundle.data.usable_labels` calls usable: images for ``multiclass``, known
    entries for ``multilabel``. Under ``torch.distributed`` it is the mean over the images of all processes: each
    divides its sum by the average number of theirs, so that the average of their gradients, which
    :mod:`cleft_bundle.engines.strategy` takes, counts every image alike. A batch without a
    usable label has the loss 0 and gradients of 0.

    Args:
        task: ``multiclass`` (one class per image) or ``multilabel`` (any number).

    Raises:
        BundleError: where ``task`` is neither.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024, section on prompt fine-tuning.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[2.0, -2.0], [0.0, 0.0]])
        >>> label = torch.tensor([[1.0, 0.0], [1.0, float("nan")]])  # one label is unknown
        >>> round(float(ClassificationLoss("multilabel")(logits, label)), 4)
        0.3157
    """

    target = "label"  # key of the batch that it compares with

    def __init__(self, task: Task) -> None:
        super().__init__()
        require_one_of("task", task, ("multiclass", "multilabel"))
        self.task: Task = task

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the loss of one batch; every process has to call it.

        Args:
            logits: float tensor [B, K].
            label: float tensor [B, K] of 1, 0 and NaN (unknown, left out).

        Returns:
            the loss, a scalar tensor.
        """
        total, count = summed_loss(logits, label, self.task)
        if world_size() > 1:
            dist.all_reduce(count)
        return total * world_size() / count.clamp(min=1)


def summed_loss(logits: torch.Tensor, label: torch.Tensor, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of the usable labels, and their number: two scalar tensors of the type of the logits.

    Args:
        logits: float tensor [B, K].
        label: float tensor [B, K] of 1, 0 and NaN (unknown, left out).
        task: ``multiclass``, which counts images, or ``multilabel``, which counts entries.
    """
    if task == "multiclass":  # masked, not picked out: the device would have to say how many there are
        usable = usable_rows(label, task)
        each = F.cross_entropy(logits, class_numbers(label), reduction="none")
    else:
        usable = ~torch.isnan(label)
        each = F.binary_cross_entropy_with_logits(logits, torch.nan_to_num(label), reduction="none")
    return torch.where(usable, each, 0.0).sum(), usable.sum().to(logits)
