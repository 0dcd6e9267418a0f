"""open_clip checkpoints: stored ones of each family everywhere, all that open_clip can build where it is (.ci/run)."""

import json
from importlib import import_module

import pytest
import torch
from monai.utils import optional_import
from safetensors.torch import load_file, save_file

from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss, SigmoidLoss, own_loss
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer, PromptLearner, build_image_encoder
from cleft_bundle.networks.heat_maps import heat_map
from cleft_bundle.networks.open_clip import towers
from cleft_bundle.networks.open_clip.checkpoint import load_open_clip
from cleft_bundle.packaging import export_dual_encoder
from cleft_bundle.transforms import backbone_statistics
from tests.networks.open_clip_families import (
    CAPTIONS,
    FAMILIES,
    VARIANTS,
    copy_fixture,
    pixels,
)

TRANSFORMS = [{"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25}]


@pytest.fixture(autouse=True)
def small_towers(monkeypatch):
    monkeypatch.setitem(towers.TIMM_HEADS, "nano", 2)
    if optional_import("open_clip")[1]:
        import_module("tests.networks.open_clip_writer").register_nano()


@pytest.fixture
def writer():
    """What open_clip itself saves."""
    if not optional_import("open_clip")[1]:
        pytest.skip("needs open_clip, which needs torchvision")
    return import_module("tests.networks.open_clip_writer")


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path):
    """A stored checkpoint, and what open_clip makes of it."""
    expected = copy_fixture(request.param, tmp_path / request.param)
    return str(tmp_path / request.param), expected


@torch.no_grad()
def agrees(source, expected):
    network = DualEncoder(source).eval()
    tokens = DualEncoderTokenizer(source, network)(CAPTIONS)
    width = tokens["input_ids"].shape[1]
    assert torch.equal(
        tokens["input_ids"] * tokens["attention_mask"], expected["tokens"][:, :width] * tokens["attention_mask"]
    )
    assert not expected["tokens"][:, width:].any() or network.text_encoder.reads_padding
    found = network(pixels(), **tokens)
    torch.testing.assert_close(found.image, expected["image"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.text, expected["text"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.logit_scale, expected["scale"].reshape(()))
    assert (found.logit_bias is None) == ("bias" not in expected)
    return network


def test_embeddings_of_a_stored_checkpoint_are_those_of_open_clip(checkpoint):
    network = agrees(*checkpoint)
    assert backbone_statistics(checkpoint[0]) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    loss = own_loss(network, "index")
    assert isinstance(loss, SigmoidLoss if "bias" in checkpoint[1] else ContrastiveLoss)
    assert network.backbones["image tower"]["source"] == network.source


@pytest.mark.parametrize("family", [*FAMILIES, *VARIANTS])
def test_embeddings_are_those_of_open_clip(family, writer, tmp_path):
    form = family in FAMILIES or family == "eos"  # the others are pickles
    agrees(str(tmp_path / family), writer.save_open_clip(tmp_path / family, family, form))


def test_a_conversion_that_differs_is_refused(writer, tmp_path, monkeypatch):
    writer.save_open_clip(tmp_path / "biomed", "biomed")
    monkeypatch.setattr("cleft_bundle.networks.open_clip.towers._TIMM_EPSILON", 0.1)
    with pytest.raises(BundleError, match="'biomed' makes its image embeddings otherwise in open_clip than here"):
        load_open_clip(str(tmp_path / "biomed"))


@torch.no_grad()
def test_the_image_tower_is_rebuilt_without_the_checkpoint(checkpoint):
    source, expected = checkpoint
    tower = DualEncoder(source, image_peft="lora").eval().image_encoder.merged()
    again = build_image_encoder(json.loads(json.dumps(tower.settings))).eval()
    again.load_state_dict(tower.state_dict())
    torch.testing.assert_close(again(pixels()), expected["image"], atol=1e-6, rtol=0)
    assert source not in json.dumps(tower.settings)


@torch.no_grad()
def written_back(source, folder):
    """The folder of a network of which every weight has changed, and what the network makes of images and captions."""
    network = DualEncoder(source, image_peft="lora").eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        if parameter.ndim < 3:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    tokenize = DualEncoderTokenizer(source, network)
    export_dual_encoder(network, tokenize, folder, {"image_size": 28, "transforms": TRANSFORMS})
    found = network(pixels(), **tokenize(CAPTIONS))
    return {"image": found.image, "text": found.text, "scale": found.logit_scale, "bias": found.logit_bias}


@torch.no_grad()
def test_it_is_exported_and_read_again(checkpoint, tmp_path):
    expected = written_back(checkpoint[0], tmp_path / "back")
    assert (tmp_path / "back/open_clip_config.json").exists() == checkpoint[0].endswith("biomed")
    again = DualEncoder(str(tmp_path / "back")).eval()
    found = again(pixels(), **DualEncoderTokenizer(str(tmp_path / "back"), again)(CAPTIONS))
    torch.testing.assert_close(found.image, expected["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text, expected["text"], atol=1e-5, rtol=0)
    torch.testing.assert_close((found.logit_scale, found.logit_bias), (expected["scale"], expected["bias"]))


@pytest.mark.parametrize("family", ["biomed", "sigmoid", "roberta", "bias", "bert_pooler", "siglip_clip"])
def test_open_clip_takes_the_export_of_a_pair_that_transformers_has_not(family, writer, tmp_path):
    writer.save_open_clip(tmp_path / family, family)
    expected = written_back(str(tmp_path / family), tmp_path / "back")
    found = writer.as_open_clip_embeds(tmp_path / "back")
    for name in ("image", "text"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["scale"].reshape(()), expected["scale"])
    assert ("bias" in found) == (expected["bias"] is not None)


@pytest.mark.parametrize("method", ["attention", "occlusion"])
def test_heat_maps_and_frozen_blocks(checkpoint, method):
    network = DualEncoder(checkpoint[0], peft="full", image_peft="full", frozen_blocks=1, gradient_checkpointing=True)
    tokens = DualEncoderTokenizer(checkpoint[0], network)(CAPTIONS)
    own_loss(network, "index")(network.train()(pixels(), **tokens), torch.arange(3)).backward()
    assert not [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    frozen = {name for name, p in network.image_encoder.named_parameters() if not p.requires_grad}
    assert any("layers.0." in name for name in frozen)
    assert not any("layers.1." in name for name in frozen)
    directions = torch.eye(2, network.image_encoder.embedding_dim)
    assert heat_map(network.eval(), pixels()[:1], directions, method).shape == (1, 2, 2, 2)


@torch.no_grad()
def test_a_context_of_words_is_the_same_as_these_words(checkpoint):
    source, _ = checkpoint
    network = DualEncoder(source).eval()
    tokenize = DualEncoderTokenizer(source, network)
    words, short = "a chest", ["edema", "no finding"]
    length = tokenize.words([words])["input_ids"].shape[1]
    prompt = PromptLearner(network.text_encoder, tokenize.words, words, length, context="shared")
    whole = network.encode_text(**tokenize([f"{words} {text}" for text in short]))
    found = network.learn_prompt(prompt).encode_text(**tokenize.behind(words, length)(short))
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("peft", "image_peft"), [("lora", "lora"), ("full", "none"), ("none", "full")])
def test_a_step_trains_what_the_methods_say(checkpoint, peft, image_peft):
    source, _ = checkpoint
    network = DualEncoder(source, peft=peft, image_peft=image_peft).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tokens = DualEncoderTokenizer(source, network)(CAPTIONS)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the second factor of LoRA starts at zero
        optimizer.zero_grad()
        own_loss(network, "index")(network(pixels(), **tokens), torch.arange(3)).backward()
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    for tower, how in (("text_encoder.backbone", peft), ("image_encoder.backbone", image_peft)):
        own = {name for name in changed if name.startswith(tower)}
        assert bool(own) == (how != "none")
        assert all(("lora_" in name) == (how == "lora") for name in own)


def edit(source, part, **values):
    path = f"{source}/open_clip_config.json"
    with open(path) as file:
        config = json.load(file)
    config["model_cfg"][part] |= values
    with open(path, "w") as file:
        json.dump(config, file)


@pytest.mark.parametrize(
    ("family", "part", "values", "says"),
    [
        ("clip", "vision_cfg", {"attentional_pool": True}, "vision_cfg: attentional_pool True is not known here"),
        ("clip", "vision_cfg", {"layers": [1, 1, 1, 1]}, "its image tower is a ResNet of CLIP's"),
        (
            "clip",
            "text_cfg",
            {"pool_type": "first"},
            "pool_type 'first', no_causal_mask False and this text projection",
        ),
        ("clip", "vision_cfg", {"act_kwargs": {"beta": 2}}, "act_kwargs .* are not known"),
        ("biomed", "vision_cfg", {"timm_model_name": "vit_base_patch16_clip_224"}, "timm's vit_base_patch16_clip_224"),
        ("biomed", "vision_cfg", {"timm_pool": "avg"}, "timm_pool 'avg' does not go with vit_nano_patch14_28"),
        ("biomed", "text_cfg", {"hf_pooler_type": "max_pooler"}, "hf_pooler_type 'max_pooler' of a bert is not known"),
        ("biomed", "text_cfg", {"tokenizer_mode": "clips"}, "has a tokenizer_mode not known here"),
        ("siglip", "vision_cfg", {"timm_model_name": "vit_nano_patch14_28"}, "timm_pool 'map' does not go with"),
    ],
)
def test_what_is_not_known_is_refused(family, part, values, says, tmp_path):
    copy_fixture(family, tmp_path / family)
    edit(tmp_path / family, part, **values)
    with pytest.raises(BundleError, match=says) as caught:
        DualEncoder(str(tmp_path / family))
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path):
    copy_fixture("clip", tmp_path / "clip")
    path = tmp_path / "clip/open_clip_model.safetensors"
    weights = load_file(path)
    save_file(weights | {"visual.attn_pool.query": torch.ones(1)}, path)
    with pytest.raises(BundleError, match=r"its weight attn_pool.query belongs to an architecture that is not known"):
        load_open_clip(str(tmp_path / "clip"))
    del weights["visual.ln_post.bias"]
    save_file(weights, path)
    with pytest.raises(BundleError, match=r"cannot be taken over: .*post_layernorm.bias"):
        load_open_clip(str(tmp_path / "clip"))
    path.write_bytes(b"cut short")
    with pytest.raises(BundleError, match=r"open_clip_model\.safetensors cannot be read"):
        load_open_clip(str(tmp_path / "clip"))
    path.unlink()
    with pytest.raises(BundleError, match=r"'clip' has neither open_clip_model\.safetensors nor open_clip_pytorch"):
        load_open_clip(str(tmp_path / "clip"))


def test_a_config_that_is_none_is_refused(tmp_path):
    for text, says in (("{", "cannot be read"), ("[]", "has no model_cfg"), ('{"model_cfg": {}}', "has no model_cfg")):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(BundleError, match=f"dual_encoder: open_clip_config.json of .* {says}"):
            DualEncoder(str(tmp_path))
        with pytest.raises(BundleError, match=says):
            backbone_statistics(str(tmp_path))


def test_a_repository_that_cannot_be_had_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it asks the hub again and again
    with pytest.raises(BundleError, match="dual_encoder: 'hf-hub:nobody/nothing' "):
        DualEncoder("hf-hub:nobody/nothing")


def test_without_tokenizer_files_the_extra_is_named(tmp_path, monkeypatch):
    copy_fixture("clip", tmp_path / "clip")
    edit(tmp_path / "clip", "text_cfg", hf_tokenizer_name=None)
    for path in (tmp_path / "clip").glob("tokenizer*"):
        path.unlink()
    monkeypatch.setattr("cleft_bundle.networks.open_clip.tokenizer.find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"pip install 'cleft_bundle\[open_clip\]'"):
        DualEncoder(str(tmp_path / "clip"))
