"""Training by several processes, one a GPU or a share of the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.distributed import barrier as wait_for_all
from ignite.distributed import get_rank as rank
from ignite.distributed import get_world_size as world_size
from monai.utils import evenly_divisible_all_gather as gather_uneven
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from cleft_bundle.errors import BundleError

__all__ = [
    "at_first",
    "divide_state",
    "end_processes",
    "fill",
    "first_does",
    "from_first",
    "gather_lists",
    "gather_uneven",
    "own_device",
    "own_share",
    "rank",
    "start_processes",
    "wait_for_all",
    "whole",
    "world_size",
]

T = TypeVar("T")


def start_processes(timeout_minutes: float = 30.0) -> None:
    """Join the processes that ``torchrun`` has started: NCCL where there are GPUs, gloo elsewhere.

    Without ``torchrun`` nothing happens, nor does it where the processes are joined already.

    Args:
        timeout_minutes: how long one waits for another before the run ends.

    Raises:
        BundleError: where that is not above 0.
    """
    if timeout_minutes <= 0:
        raise BundleError(f"timeout_minutes: expected a number above 0, got {timeout_minutes}")
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    # ignite takes SLURM's number of the task for that of the process; one task of SLURM starts all those of torchrun
    os.environ["SLURM_LOCALID"] = os.environ["LOCAL_RANK"]
    idist.sync()  # here, where all processes come by: it exchanges messages


def end_processes() -> None:
    """Leave the processes that were joined: their connections are closed, and what waits in them is let go."""
    if dist.is_initialized():
        dist.destroy_process_group()
        idist.sync()


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


def from_first(value: T) -> T:
    """The value of the first process, for all."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def first_does(action: Callable[[], T]) -> T:
    """Result of what the first process does, for all: the others may be on machines that have no such file.

    Args:
        action: what the first process does.

    Raises:
        BundleError: of ``action``, in all processes.
    """
    found: tuple[T | None, BundleError | None] = None, None
    if rank() == 0:
        try:
            found = action(), None
        except BundleError as error:
            found = None, error
    result, failed = from_first(found)
    if failed is not None:
        raise failed
    return result  # type: ignore[return-value]  # it is None where the action says so


def gather_lists(values: list[T]) -> list[T]:
    """Join the lists of all processes in the order of their ranks.

    MONAI's ``string_list_all_gather`` takes strings alone, gives an empty string for an empty list, and breaks names
    apart that hold its delimiter, or off where they are not UTF-8, as names of files may be.
    """
    if world_size() == 1:
        return values
    everybody: list[list[T]] = [[]] * world_size()
    dist.all_gather_object(everybody, values)
    return [value for part in everybody for value in part]


def whole(values: Any) -> Any:
    """Tensors, or what holds them, as they are where the strategy ``fsdp`` has not divided them.

    All processes must ask for what is divided.
    """
    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor(), values) if world_size() > 1 else values


def at_first(values: Any) -> Any:
    """Tensors, or what holds them, on the CPU of the first process; in the others without those that are divided.

    One tensor at a time is put together, so that no process needs room for more. All processes must ask for what is
    divided.
    """

    def gathered(tensor: DTensor) -> torch.Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if rank() == 0 else None

    return tree_map_only(DTensor, gathered, values) if world_size() > 1 else values


@torch.no_grad()
def fill(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Copy values into a tensor, each process its part where the tensor is divided."""
    if isinstance(tensor, DTensor) and not isinstance(values, DTensor):
        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)


def divide_state(optimizer: torch.optim.Optimizer) -> None:
    """Divide what an optimizer keeps of divided weights, once a state of whole ones has been loaded into it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            kept = optimizer.state.get(parameter, {})
            for name, value in kept.items():
                if isinstance(parameter, DTensor) and not isinstance(value, DTensor) and value.shape == parameter.shape:
                    kept[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)
