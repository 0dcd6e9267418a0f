"""The divided part of a training state, of which each process writes what it holds.

The files are those of :mod:`torch.distributed.checkpoint`, which puts them together for any number of processes.
"""

from __future__ import annotations

import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule

from cleft_bundle.distributed import from_first, gather_lists, rank, wait_for_all
from cleft_bundle.errors import BundleError, one_line


def is_sharded(network: nn.Module, folder: Path) -> bool:
    """True where each process is to write its part: weights are divided, and all processes see the same folder.

    Machines without a disk in common would each keep a part that none of the others can read. All processes must ask.

    Args:
        network: what is trained.
        folder: of the training state.
    """
    if not isinstance(network, FSDPModule):
        return False
    mark = folder / from_first(f".seen.{uuid.uuid4().hex}")
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    wait_for_all()
    seen = all(gather_lists([mark.is_file()]))
    if rank() == 0:
        mark.unlink()
    return seen


def write_shards(
    folder: Path, weights: dict[str, torch.Tensor], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write weights and the state of their optimizer; all processes must.

    Args:
        folder: receives the files; it is made, or replaced.
        weights: what is trained, by name.
        network: it.
        optimizer: its state.
    """
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()
    save({"weights": weights, "optimizer": get_optimizer_state_dict(network, optimizer)}, checkpoint_id=folder)


def read_shards(
    folder: Path, weights: dict[str, torch.Tensor], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put into tensors and an optimizer what :func:`write_shards` has written, by however many processes.

    Args:
        folder: of the files.
        weights: receive the values of those of the same names.
        network: that of the weights, divided or not.
        optimizer: receives its state.

    Raises:
        BundleError: where a file is missing or broken, or does not hold these weights.
    """
    state: dict[str, Any] = {"weights": weights, "optimizer": get_optimizer_state_dict(network, optimizer)}
    try:
        stored = FileSystemReader(folder).read_metadata().state_dict_metadata
        kept = state["optimizer"]["state"]
        for name in list(kept):  # an optimizer keeps nothing of a weight that has had no gradient
            if not any(f"optimizer.state.{name}.{part}" in stored for part in kept[name]):
                del kept[name]
        with warnings.catch_warnings():  # one process reads them too
            warnings.filterwarnings("ignore", message=".*no_dist.*|.*torch.distributed is.*")
            load(state, checkpoint_id=folder)
    except CheckpointException as error:
        reasons = "; ".join(str(reason) for reason, _ in error.failures.values())
        raise BundleError(f"resume: {folder} cannot be read: {one_line(reasons, 300)}") from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise BundleError(f"resume: {folder} cannot be read: {one_line(error, 300)}") from error
    set_optimizer_state_dict(network, optimizer, state["optimizer"], options=StateDictOptions(strict=False))


def remove_others(kept: Path, pattern: str) -> None:
    """Remove earlier shards, once a training state names those that are kept."""
    for folder in kept.parent.glob(pattern):
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
