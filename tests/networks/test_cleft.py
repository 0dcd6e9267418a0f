import math

import pytest
import torch

from cleft_bundle.networks import CLEFT, ImageEncoder, TextEncoder
from tests.conftest import TINY_GPT2, TINY_VIT

CAPTIONS = ["edema", "pneumothorax", "edema", "edema"]


def test_folding_equal_captions_changes_nothing(make_network, images, tokenize):
    network = make_network().eval()
    plain = network(images, **tokenize(CAPTIONS))
    folded = network(images, **tokenize(["edema", "pneumothorax"]), caption_index=torch.tensor([0, 1, 0, 0]))
    for a, b in zip(plain, folded, strict=True):
        torch.testing.assert_close(a, b)


def test_the_scale_starts_at_clips_and_is_clamped(make_network):
    network = make_network()
    assert network.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        network.logit_scale.fill_(10.0)
    assert network.scale.item() == pytest.approx(100.0)
    network.max_logit_scale = None
    assert network.scale.item() == pytest.approx(math.exp(10.0), rel=1e-6)


@pytest.mark.parametrize("start", [math.log(100), 10.0])
def test_the_bound_of_the_scale_stops_no_gradient(start, make_network):
    network = make_network()
    with torch.no_grad():
        network.logit_scale.fill_(start)
    network.scale.backward()
    assert float(network.logit_scale.grad) == pytest.approx(100, rel=1e-5)
    network.clamp_scale()
    assert float(network.logit_scale) == pytest.approx(math.log(100))


@pytest.mark.parametrize("name", ["temperature", "max_logit_scale"])
def test_a_scale_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected a number above 0, got 0"):
        CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), TextEncoder(TINY_GPT2, embedding_dim=8), **{name: 0})


def test_towers_of_different_width_are_refused():
    with pytest.raises(ValueError, match="8 and 16 wide"):
        CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), TextEncoder(TINY_GPT2, embedding_dim=16))
