"""Rows of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from cleft_bundle.distributed import rank, world_size


class _Gather(torch.autograd.Function):
    """Concatenate equal shares of rows; every process must compute the same loss from the result.

    Then each process knows the whole gradient already and takes its own rows of it, without another exchange. Summed
    over processes that gradient counts once, so the factor of the world size undoes the mean that is taken over the
    processes' parameter gradients.

    ``torch.distributed.nn.all_gather`` has the same gradient, for one exchange more in every backward pass; it is
    deprecated, says so at every call from PyTorch 2.13 on, and what it recommends instead is private.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        everybody = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(everybody, rows.contiguous())
        ctx.count = len(rows)
        return torch.cat(everybody)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        start = rank() * ctx.count
        return grads[0][start : start + ctx.count] * world_size()


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all processes in the order of their ranks; alone, give them back.

    Args:
        rows: tensor [B, ...], of equal shape in every process.

    Returns:
        tensor [world size * B, ...]. Floating-point rows carry gradients, under the condition that every process
        computes the same loss from all rows and parameter gradients are then averaged over the processes.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)
