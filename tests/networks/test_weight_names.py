import json
import re

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn
from transformers import AutoConfig, AutoModel

from cleft_bundle.checkpoints import TrainedState, load_classifier, load_trained
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.networks.weight_names import own_name
from tests.conftest import ROOT

OLD = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}
FORMER = ROOT / "tests" / "fixtures"
TINY = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def as_before_5_18(name):
    return re.sub(r"attention\.([qkvo]_proj)", lambda found: f"attention.{OLD[found[1]]}", name)


def rename_modules(encoder):
    """The tower as another transformers would build it: its attention's layers have other names."""
    for module in list(encoder.backbone.modules()):
        if hasattr(module, "q_proj"):
            module.attention, module.output = nn.Module(), nn.Module()
            for new, old in OLD.items():
                holder, name = old.split(".")
                getattr(module, holder).add_module(name, module._modules.pop(new))
    return encoder


@pytest.fixture(params=["dinov2", "dinov2_with_registers"])
def encoder(request):
    return ImageEncoder({"model_type": request.param, **TINY}, embedding_dim=8)


def test_weights_in_the_spelling_before_5_18_load_strictly(encoder):
    old = {as_before_5_18(name): value + 1 for name, value in encoder.state_dict().items()}
    assert sum(".attention.attention." in name for name in old) == 12
    other = ImageEncoder(encoder.settings["backbone"], embedding_dim=8, seed=1)
    other.load_state_dict(old, strict=True)
    for name, value in encoder.state_dict().items():
        assert torch.equal(other.state_dict()[name], value + 1), name


def test_a_library_that_spells_otherwise_writes_and_reads_the_same_names(encoder):
    written, fingerprint = encoder.state_dict(), encoder.fingerprint
    other = rename_modules(ImageEncoder(encoder.settings["backbone"], embedding_dim=8, seed=1))
    assert "backbone.encoder.layer.0.attention.attention.query.weight" in dict(other.named_parameters())
    other.load_state_dict(written, strict=True)
    again = other.state_dict()
    assert again.keys() == written.keys()
    assert all(torch.equal(again[name], value) for name, value in written.items())
    assert fingerprint == other.fingerprint


def test_a_gap_and_a_remainder_are_still_refused(encoder):
    state = encoder.state_dict()
    state["backbone.strange"] = state.pop("backbone.layernorm.weight")
    with pytest.raises(RuntimeError, match=r"(?s)backbone\.layernorm\.weight.*backbone\.strange"):
        encoder.load_state_dict(state, strict=True)


@pytest.mark.parametrize("model_type", ["clip_vision_model", "convnextv2", "siglip_vision_model", "vit"])
def test_no_two_weights_of_other_towers_get_one_name(model_type):
    with torch.device("meta"):
        names = list(AutoModel.from_config(AutoConfig.for_model(model_type)).state_dict())
    assert len({own_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("spelling", [lambda name: name, as_before_5_18])
@pytest.mark.parametrize("version", ["0.6.0"])
def test_files_of_earlier_versions_score_as_they_did(version, spelling, tmp_path):
    expected = json.loads((FORMER / version / "expected.json").read_text())
    image = torch.linspace(-2, 2, 3 * 28 * 28 * 2).reshape(2, 3, 28, 28).sin()
    words, mask = torch.tensor([[5, 9, 30, 2], [7, 8, 11, 2]]), torch.tensor([[1, 1, 1, 0]] * 2)
    model = torch.load(FORMER / version / "model.pt", weights_only=True)
    torch.save({spelling(name): value for name, value in model.items()}, tmp_path / "model.pt")
    trained = torch.load(FORMER / version / "cleft.pt", weights_only=True)
    trained["weights"] = {spelling(name): value for name, value in trained["weights"].items()}
    torch.save(trained, tmp_path / "cleft.pt")
    config = ConfigParser()
    config.read_config(str(ROOT / "configs" / "train.json"))
    config.update({"bundle_root": str(ROOT), **expected["overrides"]})
    network = load_trained(config.get_parsed_content("network"), tmp_path / "cleft.pt").eval()
    classifier = load_classifier(tmp_path / "model.pt")
    with torch.no_grad():
        found = {
            "scores": classifier(image),
            "image": network.encode_image(image),
            "text": network.encode_text(words, mask),
        }
    for key, value in found.items():
        torch.testing.assert_close(value.double(), torch.tensor(expected[key]).double(), atol=1e-6, rtol=0)
    assert classifier.class_names == expected["classes"]
    assert TrainedState(network).state_dict()["weights"].keys() >= {own_name(name) for name in trained["weights"]}
