import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import (
    count_parameters,
    describe_source,
    fingerprint,
    load_backbone,
    load_tokenizer,
)
from tests.conftest import TINY_GPT2


def test_a_random_gpt2_starts_without_positions_and_a_saved_one_keeps_its_own(tmp_path):
    model = load_backbone(TINY_GPT2, "text_backbone")
    assert not model.wpe.weight.any()
    torch.nn.init.normal_(model.wpe.weight)
    model.save_pretrained(tmp_path / "gpt2")
    assert torch.equal(load_backbone(str(tmp_path / "gpt2"), "text_backbone").wpe.weight, model.wpe.weight)


def test_the_fingerprint_depends_on_names_shapes_and_values_not_on_order():
    a, b = torch.arange(6.0), torch.ones(2, 3)
    assert fingerprint([("a", a), ("b", b)]) == fingerprint([("b", b), ("a", a)])
    assert fingerprint([("a", a)]) != fingerprint([("b", a)])
    assert fingerprint([("a", a)]) != fingerprint([("a", a.reshape(2, 3))])
    changed = a.clone()
    changed[3] = 7
    assert fingerprint([("a", a)]) != fingerprint([("a", changed)])


def test_parameters_are_counted():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == {"total_parameters": 8, "trainable_parameters": 6}


def test_sources_are_named_without_their_place(tmp_path):
    (tmp_path / "vit").mkdir()
    assert describe_source(str(tmp_path / "vit")) == "vit"
    assert describe_source("facebook/dinov2-small") == "facebook/dinov2-small"
    assert describe_source(TINY_GPT2) == "gpt2 from a config"


def test_a_folder_that_is_no_tokenizer_is_one_line(tmp_path):
    with pytest.raises(BundleError, match="tokenizer: ") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
