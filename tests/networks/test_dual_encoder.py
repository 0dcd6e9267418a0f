import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import IA3Config
from transformers import AutoModel, AutoTokenizer

from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss, SigmoidLoss, own_loss
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer, PromptLearner, build_image_encoder
from cleft_bundle.networks.dual_encoder import patches_of
from cleft_bundle.networks.dual_towers import pooled
from tests.conftest import TINY_VIT, save_dual_encoder, tiny_dual_encoder

FAMILIES = ["clip", "siglip", "siglip2"]
CAPTIONS = ["edema", "a chest x ray of a patient with pleural effusion", "No Finding"]


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    return save_dual_encoder(tmp_path / request.param, request.param)


@pytest.fixture
def images():
    return torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def as_the_library_embeds(folder, images, captions):
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    flexible = model.config.model_type == "siglip2"
    inputs = patches_of(images, 14) if flexible else {"pixel_values": images}
    if model.config.model_type == "clip":
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        tokens = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    else:
        lower = [caption.lower() for caption in captions]
        tokens = tokenizer(
            lower,
            padding="max_length",
            max_length=model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        tokens = {"input_ids": tokens["input_ids"]}
    found = model.get_image_features(**inputs), model.get_text_features(**tokens)
    return [F.normalize(each if isinstance(each, torch.Tensor) else pooled(each), dim=-1) for each in found]


@torch.no_grad()
def test_embeddings_are_those_of_the_library(folder, images):
    network = DualEncoder(folder).eval()
    expected = as_the_library_embeds(folder, images, CAPTIONS)
    found = network(images, **DualEncoderTokenizer(folder, network)(CAPTIONS))
    torch.testing.assert_close(found.image, expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.text, expected[1], atol=1e-6, rtol=0)
    model = AutoModel.from_pretrained(folder)
    torch.testing.assert_close(found.logit_scale, model.logit_scale.exp().squeeze())
    assert (found.logit_bias is None) == (not hasattr(model, "logit_bias"))


@torch.no_grad()
def test_no_embedding_depends_on_its_neighbours(folder, images):
    network = DualEncoder(folder).eval()
    plain = DualEncoderTokenizer(folder, network)
    context = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    for tokenize, before in ((plain, None), (plain.behind("", 4), context)):
        together = network.text_encoder(**tokenize(CAPTIONS), context=before)
        alone = torch.cat([network.text_encoder(**tokenize([text]), context=before) for text in CAPTIONS])
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    apart = torch.cat([network.encode_image(image[None]) for image in images])
    torch.testing.assert_close(network.encode_image(images), apart, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_context_of_words_is_the_same_as_these_words(folder):
    network = DualEncoder(folder).eval()
    tokenize = DualEncoderTokenizer(folder, network)
    words, short = "a chest", ["edema", "no finding"]
    length = tokenize.words([words])["input_ids"].shape[1]
    prompt = PromptLearner(network.text_encoder, tokenize.words, words, length, context="shared")
    whole = network.encode_text(**tokenize([f"{words} {text}" for text in short]))
    found = network.learn_prompt(prompt).encode_text(**tokenize.behind(words, length)(short))
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)


def test_a_context_learns(folder):
    network = DualEncoder(folder)
    tokenize = DualEncoderTokenizer(folder, network)
    network.learn_prompt(PromptLearner(network.text_encoder, tokenize.words, "a chest", 4, "per_class", 3))
    network.encode_text(**tokenize.behind("", 4)(CAPTIONS))[:, 0].sum().backward()
    assert (network.prompt.context.grad.abs().sum(dim=(1, 2)) > 0).all()
    with pytest.raises(BundleError, match="are longer than the text model's window of "):
        network.encode_text(**tokenize(["edema " * 80] * 3))


@pytest.mark.parametrize("image_peft", ["full", "none", "lora", "ia3"])
@pytest.mark.parametrize("peft", ["lora", "none", "full"])
def test_what_trains_is_what_the_methods_say(peft, image_peft, images):
    method = image_peft
    if image_peft == "ia3":
        method = IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"])
    network = DualEncoder(tiny_dual_encoder("siglip"), peft=peft, image_peft=method).train()
    before = copy.deepcopy(network.state_dict())
    tokens = {"input_ids": torch.arange(48).reshape(2, 24) % 40 + 1, "attention_mask": torch.ones(2, 24).long()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the second factor of LoRA starts at zero
        optimizer.zero_grad()
        own_loss(network, "index")(network(images[:2], **tokens), torch.arange(2)).backward()
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {"logit_scale", "logit_bias"} <= changed <= trained | {"weights_of"}
    for tower, how in (("text_encoder", peft), ("image_encoder", image_peft)):
        own = [name for name in trained if name.startswith(tower)]
        assert bool(own) == (how != "none")
        assert all(("lora_" in name or "ia3_" in name) == (how in ("lora", "ia3")) for name in own)
        assert bool(changed & set(own)) == (how != "none")
    assert network.facts == {"peft": peft, "image_peft": image_peft, "text_pooling": "pooled"}
    towers = network.backbones
    assert (towers["image tower"]["fingerprint"] is None) == (image_peft == "full")
    assert towers["language model"]["fingerprint"] is not None


@torch.no_grad()
def test_adapters_merge_and_the_library_takes_the_model_back(folder, images, tmp_path):
    network = DualEncoder(folder, image_peft="lora").eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in network.trained_parameters().values():
        if parameter.ndim == 2:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    tower = network.image_encoder.merged()
    expected = network.encode_image(images)
    assert (expected - DualEncoder(folder).eval().encode_image(images)).norm() > 1e-3
    torch.testing.assert_close(tower(images), expected, atol=1e-5, rtol=0)
    again = build_image_encoder(tower.settings).eval()
    again.load_state_dict(tower.state_dict())
    torch.testing.assert_close(again(images), expected, atol=1e-5, rtol=0)
    network.library_model().save_pretrained(tmp_path / "back")
    back = DualEncoder(str(tmp_path / "back")).eval()
    torch.testing.assert_close(back.encode_image(images), expected, atol=1e-5, rtol=0)
    tokens = DualEncoderTokenizer(folder, network)(CAPTIONS)
    torch.testing.assert_close(back.encode_text(**tokens), network.encode_text(**tokens), atol=1e-5, rtol=0)


def test_the_loss_is_that_of_the_family(images):
    for family, kind in (("clip", ContrastiveLoss), ("siglip", SigmoidLoss)):
        network = DualEncoder(tiny_dual_encoder(family)).eval()
        tokens = torch.arange(72).reshape(3, 24) % 40 + 1
        loss = own_loss(network, "index", gather=False)
        assert isinstance(loss, kind)
        found = loss(network(images, tokens, torch.ones_like(tokens)), torch.arange(3))
        expected = network.library_model()(pixel_values=images, input_ids=tokens, return_loss=True).loss
        torch.testing.assert_close(found, expected * (2 if family == "clip" else 1), atol=1e-5, rtol=1e-5)


def test_images_of_another_size_are_interpolated_and_those_between_patches_refused(folder, images):
    network = DualEncoder(folder).eval()
    assert network.encode_image(torch.randn(2, 3, 42, 42)).shape == (2, 16)
    assert network.image_size == 28
    with pytest.raises(BundleError, match=r"image_size: 50 px is not a multiple of .* 14 px patches.* 42 or 56"):
        network.encode_image(torch.randn(2, 3, 50, 50))


def test_siglip_reads_a_window_of_full_length_in_lower_case_and_clip_the_longest_caption(folder):
    tokenize = DualEncoderTokenizer(folder, DualEncoder(folder))
    found = tokenize(CAPTIONS)
    if "siglip" in Path(folder).name:
        assert found["input_ids"].shape[1] == tokenize.max_length
        assert torch.equal(tokenize(["EDEMA"])["input_ids"], tokenize(["edema"])["input_ids"])
    else:
        assert found["input_ids"].shape[1] == int(found["attention_mask"].sum(dim=1).max())


def test_what_is_no_dual_encoder_is_refused():
    with pytest.raises(BundleError, match=r"'dinov2_with_registers from a config' is a .* without get_image_features"):
        DualEncoder(TINY_VIT)


def test_a_prefix_is_refused():
    for key in ("peft", "image_peft"):
        with pytest.raises(BundleError, match=f"{key}: prefix puts keys before"):
            DualEncoder(tiny_dual_encoder("clip"), **{key: "prefix"})


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"dual_encoder: the tokenizer of '.*none' cannot be loaded"):
        DualEncoderTokenizer(str(tmp_path / "none"), DualEncoder(tiny_dual_encoder("clip")))
