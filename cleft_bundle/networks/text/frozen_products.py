"""Matrix products with frozen bfloat16 weights on processors that have no fast ones.

Without AVX-512, PyTorch multiplies bfloat16 matrices one number after another, on one core: a step of CLEFT's 2.6 B
language model takes tens of minutes. Here the weight of one layer at a time becomes float32, which costs that layer's
memory for a moment and is at least as exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


class _FrozenProduct(torch.autograd.Function):
    """``x @ weight`` in float32, rounded to the type of ``x``; the weight gets no gradient and is kept once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return (x.float() @ weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return (gradients[0].float() @ weight.float().T).to(gradients[0].dtype), None


class FrozenLinear(nn.Linear):
    """A frozen linear layer, see the module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        if x.device.type != "cpu":
            return super().forward(x)
        product = _FrozenProduct.apply(x, self.weight.T)
        return product if self.bias is None else product + self.bias


class FrozenConv1D(Conv1D):
    """The frozen form of the layer that GPT-2 has in place of a linear one, see the module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        return _FrozenProduct.apply(x, self.weight) + self.bias if x.device.type == "cpu" else super().forward(x)


def speed_up_frozen_products(model: nn.Module) -> None:
    """Give every frozen bfloat16 layer of a model its form from this module, where the processor gains by it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":  # AVX-512 and Arm multiply bfloat16 well enough
        return
    forms: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: FrozenLinear, Conv1D: FrozenConv1D}
    for module in model.modules():
        form = forms.get(type(module))
        if form and module.weight.dtype == torch.bfloat16 and not module.weight.requires_grad:
            module.__class__ = form
