import json

import pytest
from studies.counting import (
    Count,
    architecture,
    bert_parameters,
    build_on_meta,
    clip_parameters,
    count_towers,
    describe,
)
from transformers import AutoConfig

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import fingerprint
from tests.conftest import TINY_GPT2


def configs(root, *names):
    return [str(root / "configs" / name) for name in names]


def test_cleft_has_the_numbers_of_its_paper(root):
    network = build_on_meta(configs(root, "train.json", "net_cleft.json"))
    assert all(parameter.is_meta for parameter in network.parameters())
    counts = count_towers(network)
    assert counts["image backbone"] == Count(86_583_552, 86_583_552)
    assert counts["image projection"] == Count(393_728, 393_728)
    assert counts["text backbone"] == Count(2_594_247_680, 0)
    assert counts["adapters"] == Count(2_621_440, 2_621_440)
    assert counts["text projection"] == Count(1_311_232, 1_311_232)
    assert counts["logit scale"] == Count(1, 1)
    assert counts["total"].trainable == 90_909_952 + 1
    text = describe(counts)
    assert "90,909,952 + 1 logit scale; CLIP ViT-B/16 has 149,620,737: -39.2%" in text
    assert "3,932,672; BERT-base has 109,482,240: 3.6%" in text


def test_the_models_compared_with_have_their_published_sizes():
    assert (clip_parameters(), bert_parameters()) == (149_620_737, 109_482_240)


@pytest.mark.parametrize("names", [("train.json",), ("train.json", "net_small.json")])
def test_other_configs_are_counted_and_their_parts_add_up(names, root):
    counts = count_towers(build_on_meta(configs(root, *names)))
    total = counts.pop("total")
    assert total == Count(sum(c.total for c in counts.values()), sum(c.trainable for c in counts.values()))
    assert counts["adapters"].total == counts["adapters"].trainable > 0


@pytest.mark.parametrize("method", ["dora", "ia3", "prefix", "adalora"])
def test_adapters_of_every_method_are_told_from_the_backbone(method, make_network):
    plain, adapted = count_towers(make_network(peft="none")), count_towers(make_network(peft=method))
    assert plain["adapters"] == Count(0, 0)
    assert adapted["adapters"].trainable > 0
    assert adapted["text backbone"] == plain["text backbone"]


def test_a_local_folder_is_read_by_its_config(tmp_path):
    AutoConfig.for_model(**TINY_GPT2).save_pretrained(tmp_path)
    values = architecture(str(tmp_path), "text_backbone")
    assert (values["model_type"], values["n_embd"]) == ("gpt2", 16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "define no 'network_def'"),
        ({"network_def": {"image_encoder": {"backbone": "a/b"}}}, "image_encoder#backbone: 'a/b' is no local folder"),
    ],
)
def test_what_cannot_be_counted_is_refused(content, message, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message):
        build_on_meta(str(tmp_path / "c.json"))
    with pytest.raises(BundleError, match=r"there is no file 'no\.json'"):
        build_on_meta("no.json")


def test_weights_without_values_have_a_fingerprint_of_their_shapes(root):
    network = build_on_meta(configs(root, "train.json"))
    weights = list(network.text_encoder.named_parameters())
    assert fingerprint(weights) == fingerprint(weights) != fingerprint(weights[1:])
