import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import (
    count_parameters,
    describe_source,
    fingerprint,
    load_backbone,
    load_tokenizer,
    value_fingerprint,
)
from tests.conftest import TINY_GPT2


def test_a_random_gpt2_starts_without_positions_and_a_saved_one_keeps_its_own(tmp_path):
    model = load_backbone(TINY_GPT2, "text_backbone")
    assert not model.wpe.weight.any()
    torch.nn.init.normal_(model.wpe.weight)
    model.save_pretrained(tmp_path / "gpt2")
    assert torch.equal(load_backbone(str(tmp_path / "gpt2"), "text_backbone").wpe.weight, model.wpe.weight)


@pytest.mark.parametrize("fingerprint", [fingerprint, value_fingerprint])
def test_a_fingerprint_depends_on_names_shapes_and_values_not_on_order(fingerprint):
    a, b = torch.arange(6.0), torch.ones(2, 3)
    assert fingerprint([("a", a), ("b", b)]) == fingerprint([("b", b), ("a", a)])
    assert fingerprint([("a", a)]) != fingerprint([("b", a)])
    assert fingerprint([("a", a)]) != fingerprint([("a", a.reshape(2, 3))])
    changed = a.clone()
    changed[3] = -7
    assert fingerprint([("a", a)]) != fingerprint([("a", changed)])


@pytest.mark.parametrize("scale", [1.0, 0.02, 1e-4, 1e-7, 1e-9])  # float16 has nothing between 0 and 6e-8
def test_the_same_weights_have_one_fingerprint_however_often_they_were_rounded(scale):
    weights = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)) * scale
    half, brain, exact = torch.float16, torch.bfloat16, torch.float32
    found = set()
    for roundings in ((exact,), (half,), (brain,), (half, brain), (brain, half), (half, exact), (torch.float64,)):
        copy = weights
        for dtype in roundings:
            copy = copy.to(dtype)
        found.add(fingerprint([("w", copy)]))
    assert len(found) == 1
    other = weights + 0.1 * scale * torch.randn(300, 300, generator=torch.Generator().manual_seed(1))
    assert fingerprint([("w", other)]) not in found


def test_a_value_fingerprint_tells_sizes_apart_and_is_that_of_release_0_6():
    gains = torch.ones(4)
    assert fingerprint([("a", gains)]) == fingerprint([("a", 2 * gains)])
    assert value_fingerprint([("a", gains)]) != value_fingerprint([("a", 2 * gains)])
    weights = [("weight", torch.linspace(-1, 1, 1000).reshape(10, 100)), ("bias", torch.arange(6.0))]
    assert value_fingerprint(weights) == "609a0b3d7117c3c6e4865e2ac638c8c22b32861ebe47d521dbd9684cf72223f8"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_loaded_in_float32_unless_another_type_is_asked_for(dtype, tmp_path):
    load_backbone(TINY_GPT2, "text_backbone").to(dtype).save_pretrained(tmp_path)
    assert {p.dtype for p in load_backbone(str(tmp_path), "text_backbone").parameters()} == {torch.float32}
    assert {p.dtype for p in load_backbone(str(tmp_path), "text_backbone", dtype=dtype).parameters()} == {dtype}


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
