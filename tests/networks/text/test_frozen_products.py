import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from cleft_bundle.networks.text.frozen_products import FrozenConv1D, FrozenLinear, speed_up_frozen_products


@pytest.fixture
def avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(
    ("layer", "form"), [(nn.Linear(12, 7), FrozenLinear), (Conv1D(7, 12), FrozenConv1D)], ids=["linear", "conv1d"]
)
def test_values_and_gradients_are_those_of_float32_up_to_rounding(layer, form):
    nn.init.normal_(layer.bias)
    layer = layer.to(torch.bfloat16).requires_grad_(False)
    weight = layer.weight.float() if form is FrozenConv1D else layer.weight.float().T
    speed_up_frozen_products(layer)
    assert type(layer) is form
    x = torch.randn(3, 5, 12).to(torch.bfloat16).requires_grad_()
    y, gradient = layer(x), torch.randn(3, 5, 7).to(torch.bfloat16)
    y.backward(gradient)
    assert y.dtype == x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), x.float() @ weight + layer.bias.float(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(x.grad.float(), gradient.float() @ weight.T, rtol=0.01, atol=0.01)


@pytest.mark.usefixtures("avx2")
def test_layers_that_are_trained_or_precise_stay_as_they_are():
    trained = nn.Linear(2, 2, dtype=torch.bfloat16)
    precise = nn.Linear(2, 2).requires_grad_(False)
    speed_up_frozen_products(nn.Sequential(trained, precise))
    assert (type(trained), type(precise)) == (nn.Linear, nn.Linear)


def test_processors_with_fast_bfloat16_need_nothing(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer = nn.Linear(2, 2, dtype=torch.bfloat16).requires_grad_(False)
    speed_up_frozen_products(layer)
    assert type(layer) is nn.Linear
