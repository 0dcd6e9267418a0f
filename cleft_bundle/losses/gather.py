"""Rows of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from cleft_bundle.distributed import rank, world_size


class _Gather(torch.autograd.Function):
    """Concatenate equal shares of rows; a row's gradient is the sum over the losses of all processes.

    ``torch.distributed.nn.all_gather`` does the same; it is deprecated, says so at every call from PyTorch 2.13 on, and
    what it recommends instead is private.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        everybody = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(everybody, rows.contiguous())
        ctx.count = len(rows)
        return torch.cat(everybody)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        gradient = grads[0].clone()  # gloo has no reduce_scatter of every release; embeddings are small
        dist.all_reduce(gradient)
        start = rank() * ctx.count
        return gradient[start : start + ctx.count]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all processes in the order of their ranks; alone, give them back.

    Args:
        rows: tensor [B, ...], of equal shape in every process.

    Returns:
        tensor [world size * B, ...]. Floating-point rows carry gradients: where each process computes the mean of its
        own rows' losses, and parameter gradients are then averaged over the processes, they are those of the mean over
        all rows.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)
