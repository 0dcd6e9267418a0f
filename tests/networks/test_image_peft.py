"""Adapters in image towers: what is trained, kept, resumed and merged."""

import json

import pytest
import torch

from cleft_bundle.checkpoints import TrainedOn, TrainedState, image_tower, load_trained, save
from cleft_bundle.checkpoints.finetuned import FinetunedState, build_finetuned
from cleft_bundle.engines.optimizer import parameter_groups
from cleft_bundle.errors import BundleError
from cleft_bundle.experiments.parameters import count_trained
from cleft_bundle.metrics.score_files import KeptScores
from cleft_bundle.networks import (
    CLEFT,
    AdaLora,
    FinetunedClassifier,
    ImageClassifier,
    ImageEncoder,
    Lora,
    TextEncoder,
    ZeroShotClassifier,
    peft_methods,
)
from cleft_bundle.networks.backbones import fingerprint
from tests.conftest import TINY_GPT2, TINY_VIT
from tests.networks.image_families import config

SPLITS = {"train": [{"patient_id": "a", "name": "1", "caption": "x"}], "validation": [], "test": []}
METHODS = ["lora", "dora", "ia3", "adalora"]
FEED_FORWARD = {"ia3": {"target_modules": ["k_proj", "v_proj", "fc2"], "feedforward_modules": ["fc2"]}}


def method(name):
    return peft_methods.METHODS[name](**FEED_FORWARD.get(name, {}))


def tower(peft="lora", backbone=TINY_VIT, **arguments):
    return ImageEncoder(backbone, embedding_dim=8, peft=peft, **arguments)


def network(peft="lora", backbone=TINY_VIT, **arguments):
    return CLEFT(tower(peft, backbone, **arguments), TextEncoder(TINY_GPT2, embedding_dim=8, peft=Lora(r=2)))


@torch.no_grad()
def trained(module):
    """The same module, its trained parameters moved."""
    for number, parameter in enumerate(p for p in module.parameters() if p.requires_grad):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.add_(0.2 * noise)
    return module


@pytest.mark.parametrize("name", METHODS)
def test_only_adapters_and_projection_are_trained_and_all_of_them_get_gradients(name, images):
    encoder = trained(tower(method(name)))
    names = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert names
    assert all(".lora_" in n or ".ia3_" in n or n.startswith("projection.") for n in names)
    encoder(images).square().cumsum(dim=1).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in encoder.parameters() if p.requires_grad)
    assert encoder.fingerprint == fingerprint(ImageEncoder(TINY_VIT).backbone.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_merged_towers_need_no_adapters_and_embed_alike(name, images):
    encoder = trained(tower(method(name))).eval()
    plain = ImageEncoder(TINY_VIT, embedding_dim=8).eval()
    merged = encoder.merged()
    assert set(merged.state_dict()) == set(plain.state_dict())
    assert merged.settings == plain.settings
    plain.load_state_dict(merged.state_dict())
    with torch.no_grad():
        before = encoder(images)
        torch.testing.assert_close(plain(images), before, atol=1e-6, rtol=0)
        assert (before - ImageEncoder(TINY_VIT, embedding_dim=8).eval()(images)).abs().max() > 1e-3
    assert encoder.adapted
    assert not merged.adapted
    assert merged.merged() is merged


@pytest.mark.parametrize(
    "family", ["dinov2", "dinov3_vit", "siglip_vision_model", "clip_vision_model", "vit", "deit", "beit", "swin"]
)
def test_the_attention_layers_of_each_transformer_are_found(family):
    encoder = tower(Lora(r=2), config(family), pooling="mean_patches")
    names = {n.split(".lora_")[0].rsplit(".", 1)[-1] for n, p in encoder.backbone.named_parameters() if p.requires_grad}
    assert names == {"q_proj", "v_proj"}
    assert len(encoder.blocks) >= 2


@pytest.mark.parametrize("targets", [["pwconv1", "pwconv2"], "all-linear"])
def test_a_convolutional_tower_is_adapted_where_layers_are_named(targets):
    values = config("convnext")
    with pytest.raises(BundleError, match=r"^image_peft: lora: no target_modules.*linear layers are pwconv1, pwconv2$"):
        tower("lora", values, pooling="pooled")
    encoder = trained(tower(Lora(r=2, target_modules=targets), values, pooling="pooled")).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.merged()(image), encoder(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"peft": "lorra"}, "^image_peft: expected one of"),
        ({"peft": "prefix"}, "^image_peft: prefix learns keys and values before a caption"),
        ({"peft": "lora", "frozen_blocks": 1}, "^image_peft: lora freezes the whole backbone"),
        ({"peft": "lora", "trainable": False}, "^image_peft: lora freezes the whole backbone"),
        ({"peft": Lora(target_modules=["nothing"])}, "^image_peft: lora: target_modules nothing match no layer"),
        (
            {"peft": "full", "backbone": config("convnext"), "pooling": "pooled", "gradient_checkpointing": True},
            "^gradient_checkpointing: ConvNextModel does not know it",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, says):
    with pytest.raises(BundleError, match=says):
        ImageEncoder(**{"backbone": TINY_VIT, "embedding_dim": 8} | arguments)


def test_none_freezes_the_backbone():
    names = {n for n, p in tower("none").named_parameters() if p.requires_grad}
    assert names == {"projection.weight", "projection.bias"}
    assert tower("none").fingerprint == tower("lora").fingerprint
    assert tower("full").fingerprint is None


def test_gradient_checkpointing_changes_no_gradient_of_an_adapter(images):
    gradients = []
    for checkpointing in (False, True):
        encoder = trained(tower(Lora(r=2, dropout=0.0), gradient_checkpointing=checkpointing)).train()
        encoder(images).square().cumsum(dim=1).sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(".lora_" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_a_checkpoint_holds_the_adapters_and_the_fingerprint_of_what_is_frozen(name, tmp_path, images):
    first = trained(network(name)).eval()
    save(TrainedState(first).state_dict(), tmp_path / "cleft.pt")
    state = torch.load(tmp_path / "cleft.pt", weights_only=True)
    kept = {n for n in state["weights"] if n.startswith("image_encoder.backbone.")}
    assert kept
    assert all(".lora_" in n or (name == "adalora" and ".ranknum." in n) for n in kept)
    assert state["image_backbone"]["fingerprint"] == first.image_encoder.fingerprint is not None
    with torch.no_grad():
        loaded = load_trained(network(name), tmp_path / "cleft.pt").eval()
        assert torch.equal(loaded.encode_image(images), first.encode_image(images))
        alone = image_tower("cleft", tower(name), tmp_path / "cleft.pt").eval()
        assert torch.equal(alone(images), first.encode_image(images))
    with pytest.raises(BundleError, match="was trained on the image backbone"):
        load_trained(network(name, seed=1), tmp_path / "cleft.pt")
    with pytest.raises(BundleError, match="image backbone"):
        load_trained(network("full"), tmp_path / "cleft.pt")


def test_statistics_of_a_trained_convolutional_tower_are_kept(tmp_path):
    values, image = config("resnet"), torch.randn(4, 3, 64, 64)
    first = network("full", values, pooling="pooled").train()
    first.encode_image(image)
    save(TrainedState(first).state_dict(), tmp_path / "cleft.pt")
    loaded = load_trained(network("full", values, pooling="pooled"), tmp_path / "cleft.pt").eval()
    alone = image_tower("cleft", tower("full", values, pooling="pooled"), tmp_path / "cleft.pt").eval()
    with torch.no_grad():
        expected = first.eval().encode_image(image)
        assert torch.equal(loaded.encode_image(image), expected)
        assert torch.equal(alone(image), expected)


def test_a_frozen_convolutional_tower_keeps_its_statistics():
    encoder = tower("none", config("resnet"), pooling="pooled").train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(torch.randn(4, 3, 64, 64))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


def test_adapters_learn_at_the_rate_of_new_parts():
    rates = {}
    for peft in ("full", "lora"):
        built = network(peft)
        names = {id(p): name for name, p in built.named_parameters()}
        for group in parameter_groups(built, 1e-3, 1e-5, 0.1):
            rates |= {(peft, names[id(p)]): group["lr"] for p in group["params"]}
    backbone = {key: rate for key, rate in rates.items() if key[1].startswith("image_encoder.backbone.")}
    assert {(key[0], rate) for key, rate in backbone.items()} == {("full", 1e-5), ("lora", 1e-3)}


def test_adalora_of_the_image_tower_penalises_and_prunes(images, tokenize):
    built = network(AdaLora(init_r=4, target_r=1)).train()
    assert set(built.adapted) == {"language model", "image tower"}
    assert float(built.penalty()) == pytest.approx(float(built.image_encoder.penalty()))
    assert float(built.penalty()) > 0
    chosen = built.adapted["image tower"]
    chosen.method.begin(chosen.model, 6)
    optimizer = torch.optim.AdamW([p for p in built.parameters() if p.requires_grad], lr=1e-2)
    for update in range(1, 7):
        optimizer.zero_grad()
        out = built(images, **tokenize(["edema", "mass", "effusion", "no finding"]))
        (out.image * out.text).cumsum(dim=1).sum().backward()
        optimizer.step()
        chosen.method.after_update(chosen.model, update)
        if update == 3:  # in the middle, as at the end they are forgotten
            ranked = {name for name in chosen.method.state_dict(chosen.model)["ipt"] if ".lora_E." in name}
    scales = [p for name, p in built.image_encoder.named_parameters() if ".lora_E." in name]
    assert sum(int((scale != 0).sum()) for scale in scales) == len(scales)  # a rank of 1 each, on average
    assert ranked == {
        name.removeprefix("backbone.") for name, _ in built.image_encoder.named_parameters() if ".lora_E." in name
    }


def test_the_classifier_of_an_adapted_network_has_no_adapters(images):
    built = trained(network("lora")).eval()
    weights = torch.eye(3, 8)
    classifier = ZeroShotClassifier.from_cleft(built, ["a", "b", "c"], weights, "multiclass", {"image_size": 28})
    assert not any(".lora_" in name or "base_layer" in name for name in classifier.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(classifier.embed(images), built.encode_image(images), atol=1e-6, rtol=0)
    assert built.image_encoder.adapted, "the network goes on as it was"


def test_a_fine_tuning_of_adapters_trains_them_and_leaves_a_plain_classifier(images, tmp_path):
    classifier = trained(ImageClassifier(tower("lora"), ["a", "b"], "multilabel", {"image_size": 28})).eval()
    names = {name for name, p in classifier.named_parameters() if p.requires_grad}
    assert {name for name in names if ".lora_" not in name} == {"head.weight", "head.bias"}
    assert set(classifier.adapted) == {"image tower"}
    state = FinetunedState(classifier, TrainedOn(SPLITS)).state_dict()
    loaded = build_finetuned(state, "finetuned.pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(images), classifier(images), atol=1e-6, rtol=0)
    again = FinetunedState(loaded.network, TrainedOn(SPLITS), deployed=FinetunedClassifier(loaded.network)).state_dict()
    assert json.loads(again["settings"])["trained"] == {
        n: classifier.state_dict()[n].numel() for n in names if "lora" in n
    }
    (tmp_path / "run").mkdir()
    save(again, tmp_path / "run" / "finetuned.pt")
    counted = count_trained([tmp_path / "run"], KeptScores("probe", None, {}))
    adapters = sum(p.numel() for n, p in classifier.named_parameters() if ".lora_" in n)
    assert (counted.image, counted.text, counted.heads) == (adapters, 0, 2 * 16 + 2)
