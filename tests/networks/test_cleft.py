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


def test_towers_of_different_width_are_refused():
    with pytest.raises(ValueError, match="8 and 16 wide"):
        CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), TextEncoder(TINY_GPT2, embedding_dim=16))
