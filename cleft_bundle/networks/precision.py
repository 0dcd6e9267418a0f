"""Weights in float32 that are trained, amid frozen ones of fewer bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def train_in_float32(model: nn.Module) -> None:
    """Keep what is trained in float32, and let it work amid frozen layers of fewer bits.

    An update of the weights is often smaller than what bfloat16 can tell apart. Token embeddings and norms that are
    trained compute in float32 and hand on the type of the frozen layers, which take no other; peft's layers do the
    like by themselves.

    Args:
        model: a language model whose parameters say what is trained; it is changed in place.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()
    fewer = [p for p in model.parameters() if p.is_floating_point() and p.dtype.itemsize < 4]
    if not fewer:
        return
    for module in model.modules():
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if trained and (isinstance(module, nn.Embedding) or is_norm(module)):
            module.register_forward_pre_hook(_own_type)
            module.register_forward_hook(_TypeOf(fewer[0]))


def is_norm(module: nn.Module) -> bool:
    """True for a norm, of which language models have kinds of their own (``LlamaRMSNorm``)."""
    return "norm" in type(module).__name__.lower()


def lowest_precision(model: nn.Module) -> torch.dtype:
    """The type of fewest bits among the floating-point parameters of a model: that of its frozen layers."""
    return min((p.dtype for p in model.parameters() if p.is_floating_point()), key=lambda dtype: dtype.itemsize)


class _TypeOf:
    """A hook that turns what a module gives into the type of a weight, whatever that becomes."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight

    def __call__(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(self.weight.dtype)


def _own_type(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A hook that turns what a module takes into the type of its own weight; numbers of tokens stay."""
    first, *others = args
    return (first.to(module.weight.dtype) if first.is_floating_point() else first, *others)
