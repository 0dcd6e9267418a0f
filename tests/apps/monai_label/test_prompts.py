import json

import pytest
import torch

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.apps.monai_label.lib.prompts import PromptClassifiers, read_classes
from cleft_bundle.apps.monai_label.lib.settings import Settings
from cleft_bundle.checkpoints import TrainedState, save
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import class_weights
from tests.conftest import ROOT, TINY_GPT2, TINY_VIT

TEMPLATE = "a picture of {class}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("edema| ascites", {"edema": ["a picture of edema"], "ascites": ["a picture of ascites"]}),
        (["edema"], {"edema": ["a picture of edema"], "no finding": ["a picture of no finding"]}),
        (
            {"a": "wet lungs", "b": ["dry lungs", "clear lungs"]},
            {"a": ["wet lungs"], "b": ["dry lungs", "clear lungs"]},
        ),
        ({"a": [], "b": "c"}, {"a": ["a picture of a"], "b": ["c"]}),
    ],
)
def test_classes_are_read_in_every_form(given, expected):
    assert read_classes(given, TEMPLATE) == expected


@pytest.mark.parametrize("given", [None, "", [], {}, [1], {"a": 3}, {" ": "x"}, {"a": [""]}, "edema||ascites", 7])
def test_what_names_no_classes_is_refused(given):
    with pytest.raises(BundleError, match="params, 'classes'"):
        read_classes(given, TEMPLATE)


@pytest.mark.parametrize("given", ["edema|Edema ", ["edema", "edema"], {"an edema": [], "An  edema": []}])
def test_one_name_twice_is_refused(given):
    with pytest.raises(BundleError, match=r"params, 'classes': '.*' and '.*' are one name"):
        read_classes(given, TEMPLATE)


@pytest.fixture
def settings(make_network, model_pt, tmp_path):
    """A cleft.pt and what is needed to build its network by configs/train.json."""
    torch.manual_seed(0)
    network = make_network()
    save(TrainedState(network).state_dict(), tmp_path / "cleft.pt")
    values = {
        **{
            "image_backbone": TINY_VIT,
            "text_backbone": TINY_GPT2,
            "embedding_dim": 8,
            "peft#r": 2,
            "peft#lora_alpha": 4,
        },
        **{"unfreeze_text": [], "pooling": network.image_encoder.settings["pooling"]},
    }
    conf = {"bundle": str(ROOT), "model": str(model_pt), "cleft": str(tmp_path / "cleft.pt")}
    return Settings.of(conf | {"values": json.dumps(values), "device": "cpu"}, tmp_path)


def test_prompts_are_scored_by_the_network_and_embedded_once(settings, monkeypatch):
    model = ServedModel(settings.model, "cpu")
    found = PromptClassifiers(model, settings)
    prompts = read_classes("edema|pleural effusion", TEMPLATE)
    loaded = found.classifier(prompts, "multiclass")
    assert loaded.classifier.class_names == ["edema", "pleural effusion"]
    expected = class_weights(found.network, prompts, found.tokenize, "multiclass")
    torch.testing.assert_close(loaded.classifier.class_weights, expected)
    assert loaded.classifier.preprocessing == model.classifier.preprocessing
    monkeypatch.setattr(found.network, "encode_text", None)
    assert found.classifier(dict(prompts), "multiclass") is loaded
    long = "very " * 100
    with pytest.raises(BundleError, match="'a' and 'b' have equal tokens once cut to max_caption_tokens 64"):
        found.classifier({"a": [long + "a"], "b": [long + "b"]}, "multiclass")
    with pytest.raises(TypeError):  # other prompts do need the language model
        found.classifier(read_classes("edema", TEMPLATE), "multilabel")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"embedding_dim": 16}, "does not fit the network"),
        ({"embeding_dim": 8}, "'embeding_dim' is no id of train.json"),
    ],
)
def test_weights_of_another_network_are_refused(settings, tmp_path, values, reason):
    conf = {"bundle": str(ROOT), "model": str(settings.model), "cleft": str(settings.cleft)}
    other = Settings.of(conf | {"values": json.dumps(settings.values | values)}, tmp_path)
    with pytest.raises(BundleError, match=reason):
        PromptClassifiers(ServedModel(settings.model, "cpu"), other)
