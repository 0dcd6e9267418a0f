"""Training by several processes, one a GPU or a share of the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from cleft_bundle.errors import BundleError

T = TypeVar("T")


def start_processes() -> None:
    """Join the processes that ``torchrun`` has started: NCCL where there are GPUs, gloo elsewhere.

    Without ``torchrun`` nothing happens, nor does it where the processes are joined already.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def own_device(torchrun: bool = False) -> torch.device:
    """The GPU of this process, by its number on the machine under ``torchrun``, or the CPU where there is none.

    Args:
        torchrun: refuse to go on where ``torchrun`` has not started this process.

    Raises:
        BundleError: where it has not.
    """
    if torchrun and "RANK" not in os.environ:
        raise BundleError(
            "multi_gpu_train.json goes with torchrun: torchrun --nproc_per_node N -m monai.bundle run ..."
        )
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th item, for an evaluation that n processes divide among them without counting any item twice.

    Raises:
        BundleError: where there are fewer items than processes.
    """
    if len(items) < world_size():
        raise BundleError(f"{len(items)} images cannot be divided among {world_size()} processes")
    return items[rank() :: world_size()]


def rank() -> int:
    """Number of this process, 0 where there is only one. Process 0 writes files, draws bars and talks to MLflow."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def from_first(value: T) -> T:
    """The value of the first process, for all."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def gather_uneven(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate rows [N, ...] of all processes in the order of their ranks, whose numbers N may differ."""
    if world_size() == 1:
        return rows
    everybody: list[torch.Tensor] = [torch.empty(0)] * world_size()
    dist.all_gather_object(everybody, rows)
    return torch.cat(everybody)


def gather_lists(values: list[T]) -> list[T]:
    """Join the lists of all processes in the order of their ranks."""
    if world_size() == 1:
        return values
    everybody: list[list[T]] = [[]] * world_size()
    dist.all_gather_object(everybody, values)
    return [value for part in everybody for value in part]
