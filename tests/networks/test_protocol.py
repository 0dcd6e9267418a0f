"""Every network answers what training, checkpoints, heat maps and reports ask."""

import pytest
import torch
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.handlers.checkpoints import STATES
from cleft_bundle.networks import (
    DualEncoder,
    Embeddings,
    ExportedClassifier,
    FinetunedClassifier,
    ImageClassifier,
    ImageEncoder,
    Network,
    TrainableClassifier,
)
from cleft_bundle.networks.heat_maps import Head, heat_map
from tests.conftest import TINY_VIT, tiny_dual_encoder

KINDS = {
    **{"CLEFT": "trained", "DualEncoder": "trained"},
    **{"ImageClassifier": "finetuned", "TrainableClassifier": "deployable"},
}


@pytest.fixture
def networks(make_network, classifier):
    head = ImageClassifier(ImageEncoder(TINY_VIT), ["a", "b"], "multilabel")
    dual = DualEncoder(tiny_dual_encoder("siglip"))
    everybody = [make_network(), dual, head, TrainableClassifier(classifier), FinetunedClassifier(head), classifier]
    return {type(network).__name__: network.eval() for network in everybody}


def test_all_embed_and_have_patches(networks, images):
    for network in networks.values():
        assert isinstance(network, Network)
        assert network.embed(images).shape[0] == len(images)
        assert network.embeds
        assert network.patch_size == 14
        assert float(network.penalty()) == 0
        network.after_update()


def test_what_is_trained_says_how_it_is_kept(networks):
    assert {name: networks[name].checkpoint for name in KINDS} == KINDS
    assert set(KINDS.values()) - {""} == set(STATES)


def test_dual_networks_name_what_they_return(networks, images, tokenize):
    for name in ("CLEFT", "DualEncoder"):
        network, tokens = networks[name], tokenize(["edema", "no finding"])
        index = torch.tensor([0, 1, 1, 0])
        found = network(images, **tokens, caption_index=index)
        assert isinstance(found, Embeddings)
        apart = network.pair(network.encode_image(images), network.encode_text(**tokens), index)
        for one, other in zip(found, apart, strict=True):
            torch.testing.assert_close(one, other)
        assert found.logit_scale == network.scale
        assert (found.logit_bias is None) == (name == "CLEFT")
        assert network.embeds_apart
    assert not networks["ImageClassifier"].embeds_apart


def test_what_reports_tell_of_a_network(networks):
    towers = networks["CLEFT"].backbones
    assert {name: tower["source"] for name, tower in towers.items()} == {
        "image tower": "dinov2_with_registers from a config",
        "language model": "gpt2 from a config",
    }
    assert towers["image tower"]["fingerprint"] is None
    assert len(networks["DualEncoder"].backbones["language model"]["fingerprint"]) == 64
    assert networks["CLEFT"].facts == {"peft": "lora", "image_peft": "full", "text_pooling": "end"}
    assert networks["ImageClassifier"].facts == {"image_peft": "full"}


@pytest.mark.parametrize("name", ["ZeroShotClassifier", "TrainableClassifier", "FinetunedClassifier"])
def test_a_calibrated_head_gives_the_scores_from_embeddings(name, networks, images):
    network = networks[name]
    if name == "FinetunedClassifier":
        network.calibrate(2.0, [0.5, -1.0], {})
    weights, bias = network.calibrated_head()
    logits = network.embed(images) @ weights.T + bias
    scores = network(images) if name == "TrainableClassifier" else torch.logit(network(images))
    torch.testing.assert_close(logits, scores, atol=1e-4, rtol=1e-4)


def test_what_a_network_does_not_have_it_refuses_in_one_line(images):
    assert Network().patch_size is None
    with pytest.raises(BundleError, match="Network holds no vision transformer with square patches"):
        heat_map(Network(), images, torch.ones(1, 8))
    assert Network().calibrated_head() is None
    with pytest.raises(BundleError, match="Network shows no maps"):
        Head.of(Network())
    settings = {"class_names": ["a"], "task": "multilabel", "preprocessing": {}, "operating_point": {}}
    exported = ExportedClassifier("model.onnx", settings)
    assert not exported.embeds
    with pytest.raises(BundleError, match="an exported classifier gives no embeddings"):
        exported.embed(images)


def test_a_network_of_a_new_kind_takes_part_by_answering(images):
    class Mean(Network):
        def embed(self, image):
            return image.mean((2, 3))

    assert Mean().embed(images).shape == (4, 3)
    assert isinstance(Mean(), nn.Module)
    assert Mean().tower is None
