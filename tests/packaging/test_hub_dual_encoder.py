"""A folder of the dual encoder is loaded by transformers with its own code, and embeds as the network does."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import load_backbone
from cleft_bundle.packaging.hub_dual_encoder import export_dual_encoder
from tests.conftest import TINY_GPT2
from tests.networks.text.berts import BERTS
from tests.packaging.hub_towers import TRANSFORMS

CAPTIONS = ["no finding", "this is a chest x ray of a patient with edema"]
PREPROCESSING = {"image_size": 28, "transforms": TRANSFORMS}
STRANGER = r"""
import sys
from pathlib import Path
sys.modules["cleft_bundle"] = None
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
pixels = load_file("pixels.safetensors")["pixels"]
for folder in sorted(path for path in Path(".").iterdir() if (path / "modeling_cleft.py").is_file()):
    model = AutoModel.from_pretrained(f"./{folder}", trust_remote_code=True).eval()
    if model.text_model is None:
        try:
            model.get_text_features(None, None)
        except ValueError as error:
            assert "call load_text_model()" in str(error)
        model.load_text_model("./language_model")
    tokens = model.tokenize(AutoTokenizer.from_pretrained(f"./{folder}"), CAPTIONS)
    found = {"image": model.get_image_features(pixels), "text": model.get_text_features(**tokens)}
    save_file(found | {"logits": model(pixels, **tokens).detach()}, f"{folder}.safetensors")
    print(folder)
try:
    model.load_text_model("./other_model")
except ValueError as error:
    assert "is not the language model of the training" in str(error)
else:
    raise AssertionError("another language model was taken")
"""


@pytest.fixture(scope="module")
def language_models(tmp_path_factory):
    """A folder with a language model, another one, and what tests write."""
    folder = tmp_path_factory.mktemp("dual")
    for seed, name in enumerate(("language_model", "other_model")):
        load_backbone(TINY_GPT2 | {"initializer_range": 0.3}, "text_backbone", seed=seed).save_pretrained(folder / name)
    return folder


def trained(make_network, **text):
    """A network whose adapters are no longer zero."""
    network = make_network(**text).eval()
    with torch.no_grad():
        draw = torch.Generator().manual_seed(3)
        for name, parameter in network.text_encoder.backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return network


def test_embeddings_are_those_of_the_network(language_models, make_network, tokenize, images):
    source = str(language_models / "language_model")
    bert = BERTS["bert"] | {"vocab_size": 768}
    networks = {
        "adapter": trained(make_network, backbone=source),
        "merged": trained(make_network, backbone=source),
        "frozen": trained(make_network, backbone=source, peft="none"),
        **{name: trained(make_network, backbone=bert, pooling=name, peft="full") for name in ("mean", "cls")},
    }
    for name, network in networks.items():
        text = "adapter" if name in {"adapter", "frozen"} else "merged"
        export_dual_encoder(network, tokenize, language_models / name, PREPROCESSING, text)
    assert not any(name.startswith("text_model.") for name in load_file(language_models / "adapter/model.safetensors"))
    assert str(language_models) not in (language_models / "adapter" / "config.json").read_text()
    assert str(language_models) not in (language_models / "adapter" / "adapter" / "adapter_config.json").read_text()
    save_file({"pixels": images}, language_models / "pixels.safetensors")
    code = STRANGER.replace("CAPTIONS", repr(CAPTIONS))
    subprocess.run([sys.executable, "-c", code], cwd=language_models, check=True)
    for name, network in networks.items():
        found = load_file(language_models / f"{name}.safetensors")
        with torch.no_grad():
            image, text = network.encode_image(images), network.encode_text(**tokenize(CAPTIONS))
        torch.testing.assert_close(found["image"], image, atol=1e-6, rtol=0)
        torch.testing.assert_close(found["text"], text, atol=1e-6, rtol=0)
        torch.testing.assert_close(found["logits"], network.scale * image @ text.T, atol=1e-4, rtol=0)
    assert (
        networks["adapter"].encode_text(**tokenize(CAPTIONS)) - networks["frozen"].encode_text(**tokenize(CAPTIONS))
    ).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ({"peft": "prefix"}, "its language model is adapted by a prefix"),
        ({"peft": "full"}, "full trained weights that no adapter holds: pass text merged"),
        ({"unfreeze": ["layer_norms"]}, "unfreeze_text trained weights that no adapter holds"),
        ({"projection": 8}, "its projection is an mlp"),
        ({}, "its language model comes from a config and is nowhere else: pass text merged"),
    ],
)
def test_what_the_folder_cannot_hold_is_refused(text, says, make_network, tokenize, tmp_path):
    with pytest.raises(BundleError, match=says):
        export_dual_encoder(make_network(**text), tokenize, tmp_path / "hub", PREPROCESSING)
    assert list(tmp_path.iterdir()) == []
