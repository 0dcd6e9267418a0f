"""Several processes that train one network: a replica in each, or its weights divided among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils._pytree import tree_map_only

from cleft_bundle.distributed import from_first, gather_lists, whole, world_size
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.backbones import blocks_of
from cleft_bundle.networks.peft_methods import RankedAdapters
from cleft_bundle.networks.protocol import Network

Strategy = Literal["auto", "single", "ddp", "fsdp"]
Result = TypeVar("Result")

_CALLED = ("encode_image", "encode_text", "embed", "penalty")  # beside forward


def distribute(network: Network, strategy: Strategy = "auto") -> Network:
    """Make a network ready to be trained by all processes, before an optimizer takes its parameters.

    Args:
        network: on its device; it is changed in place where its weights are divided.
        strategy: ``single`` for one process; ``ddp``: a replica in each, by ``DistributedDataParallel``; ``fsdp``:
            weights, gradients and the optimizer's state divided block by block, by ``fully_shard``; ``auto``: ``fsdp``
            where a replica and what its training keeps take more than half of the memory of a process, else ``ddp``.

    Returns:
        the network.

    Raises:
        BundleError: where the strategy is none of these, does not go with the number of processes, or the network
            cannot be divided.
    """
    require_one_of("strategy", strategy, get_args(Strategy))
    if world_size() == 1:
        if strategy in ("ddp", "fsdp"):
            raise BundleError(f"strategy: {strategy} is for several processes, there is one; expected auto or single")
        return network
    if strategy == "single":
        raise BundleError(f"strategy: single is for one process, but there are {world_size()}; expected auto")
    if strategy == "auto":
        strategy = "fsdp" if from_first(_is_large(network)) and network.checkpoint == "trained" else "ddp"
    if next(network.parameters()).device.type == "cuda":  # elsewhere it does not exist
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if strategy == "fsdp":
        _divide(network)
    return network


class Alone:
    """One process."""

    def run(self, compute: Callable[[], Result]) -> Result:
        """Result of ``compute``, from which gradients will come."""
        return compute()

    @contextmanager
    def waiting(self, wait: bool) -> Iterator[None]:
        """Run a step within; where it is to wait, its gradients are part of a sum that a later step ends."""
        yield

    def most(self, number: int) -> int:
        """How often a tower runs within a step, of which this process needs ``number`` times."""
        return number

    def finish(self, network: nn.Module) -> None:
        """Bring together what the backward passes have left apart."""


class Replicated(Alone):
    """A replica of the network in each process, whose gradients are averaged while the backward pass runs.

    Args:
        network: the replica; the first process gives the others its weights.
    """

    def __init__(self, network: nn.Module) -> None:
        device = next(network.parameters()).device
        self._replica = DistributedDataParallel(
            _Whole(network),
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=True,  # tokens and norms that a pooling leaves out, chunks
            gradient_as_bucket_view=True,
        )

    def run(self, compute: Callable[[], Result]) -> Result:
        """As :meth:`Alone.run`."""
        return self._replica(compute)

    @contextmanager
    def waiting(self, wait: bool) -> Iterator[None]:
        """As :meth:`Alone.waiting`."""
        if not wait:
            yield
        else:
            with self._replica.no_sync():
                yield


class Divided(Alone):
    """Each process holds a part of the weights; gradients are averaged and divided by every backward pass."""

    def most(self, number: int) -> int:
        """The most that any process needs: a block gets its weights only where all processes run it."""
        return max(gather_lists([number]))

    def finish(self, network: nn.Module) -> None:
        """Average the gradients of what is too small to be divided."""
        for parameter in network.parameters():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()


class _Whole(nn.Module):
    """A network as ``DistributedDataParallel`` wants it: one forward, whatever is computed in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, compute: Callable[[], Any]) -> Any:
        # a parameter that is an output itself, such as the logit bias, would be taken for one that is not used
        return tree_map_only(nn.Parameter, lambda parameter: parameter.view_as(parameter), compute())


def sharing(network: nn.Module) -> Alone:
    """The way in which the processes share a network that :func:`distribute` has seen."""
    if isinstance(network, FSDPModule):
        return Divided()
    return Replicated(network) if world_size() > 1 else Alone()


def clip_gradients(network: nn.Module, longest: float) -> None:
    """Scale the gradients of a network down where all of them together are longer than ``longest``.

    ``torch.nn.utils.clip_grad_norm_`` refuses weights of which some are divided and others are not.
    """
    kinds: dict[bool, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.grad is not None:
            kinds.setdefault(isinstance(parameter, DTensor), []).append(parameter)
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in kinds.values()]
    total = get_total_norm(whole(norms))
    for group in kinds.values():
        clip_grads_with_norm_(group, longest, total)


def _divide(network: Any) -> None:
    """Divide the weights of a network: each block by itself, and what is outside of blocks."""
    if network.checkpoint != "trained":  # the files of the others are written by one process from what it holds
        raise BundleError(f"strategy: fsdp does not divide a {type(network).__name__}; expected ddp")
    for adapted in network.adapted.values():
        if isinstance(adapted.method, RankedAdapters):
            name = adapted.method.name
            raise BundleError(f"strategy: fsdp divides matrices that {name} must see as a whole; expected ddp")
    if "image tower" in network.adapted:
        raise BundleError("strategy: fsdp divides matrices into which image_peft is to be merged; expected ddp")
    for tower in (network.image_encoder, getattr(network, "text_encoder", None)):
        for block in () if tower is None else blocks_of(tower.backbone):
            fully_shard(block)
    fully_shard(network, ignored_params={p for p in network.parameters() if p.ndim == 0})
    for method in _CALLED:
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)


def _is_large(network: nn.Module) -> bool:
    """Whether a replica, the gradients of what is trained and AdamW's two moments take half of a process's memory."""
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    device = next(network.parameters()).device
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[1]
    else:
        memory = psutil.virtual_memory().total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return weights + 3 * trained > memory / 2
