"""Precision of a training by what its device has, and towers that are compiled."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from cleft_bundle.distributed import rank
from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import blocks_of

logger = logging.getLogger(__name__)


def precision_of(autocast: str | None, device: torch.device) -> str | None:
    """The mixed precision of a training, and on a GPU that of what stays in float32: TF32, or with None float32.

    Args:
        autocast: ``auto``: ``bfloat16`` on a GPU that has it, else None; any other value stays what it is.
        device: what trains.

    Returns:
        ``autocast`` of :class:`cleft_bundle.engines.TrainingStep`.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if autocast is None else "high")
    if autocast != "auto":
        return autocast
    if device.type != "cuda":
        return None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    if rank() == 0:
        logger.warning(f"autocast: {torch.cuda.get_device_name(device)} has no bfloat16: float32 is taken")
    return None


def compile_towers(network: Any, backend: str = "inductor") -> None:
    """Let the blocks of both towers be compiled at the first step; what they are called in files stays the same.

    Block by block, one graph serves all blocks of a tower, and what lies around them (packing, pooling, a prompt) stays
    as it is.

    Args:
        network: the dual encoder, or a classifier of images; it is changed in place.
        backend: of :func:`torch.compile`.

    Raises:
        BundleError: where the network is divided among processes, or there is no compiler.

    Source: PyTorch's recipe "Reducing torch.compile cold start compilation time with regional compilation".
    """
    if isinstance(network, FSDPModule):
        raise BundleError(
            "compile: strategy fsdp gathers weights between the parts that would be compiled; set it false"
        )
    on_cpu = next(network.parameters()).device.type == "cpu"
    if backend == "inductor" and on_cpu and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise BundleError("compile: there is no C++ compiler (g++ or clang++); install one, or set it false")
    for tower in (network.image_encoder, getattr(network, "text_encoder", None)):
        for block in () if tower is None else blocks_of(tower.backbone):
            block.compile(backend=backend)
