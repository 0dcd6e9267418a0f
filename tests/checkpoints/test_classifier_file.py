import json

import pytest
import torch

from cleft_bundle.checkpoints import load_classifier, save
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier, class_weights

PROMPTS = {"edema": ["edema"], "no finding": ["no finding"]}
SETTINGS = {"image_size": 28, "transforms": []}


@pytest.fixture
def classifier(make_network, tokenize):
    network = make_network()
    weights = class_weights(network, PROMPTS, tokenize, "multilabel")
    return ZeroShotClassifier.from_cleft(network, list(PROMPTS), weights, "multilabel", SETTINGS)


def test_the_file_alone_gives_the_same_scores(classifier, tmp_path, images):
    save(classifier.state_dict(), tmp_path / "model.pt")
    loaded = load_classifier(tmp_path / "model.pt")
    assert loaded.class_names == list(PROMPTS)
    assert loaded.task == "multilabel"
    assert loaded.preprocessing == SETTINGS
    with torch.no_grad():
        assert torch.equal(loaded(images), classifier(images))


def test_a_state_dict_without_settings_is_refused(tmp_path):
    save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="holds no settings"):
        load_classifier(tmp_path / "model.pt")


def test_a_missing_weight_is_refused(classifier, tmp_path):
    state = classifier.state_dict()
    del state["image_encoder.projection.bias"]
    save(state, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="does not fit its own settings"):
        load_classifier(tmp_path / "model.pt")


def test_a_missing_file_says_how_it_comes_into_being(tmp_path):
    with pytest.raises(BundleError, match="training writes it"):
        load_classifier(tmp_path / "model.pt")


def test_calibration_and_operating_point_come_back(classifier, images, tmp_path):
    with torch.no_grad():
        plain = classifier(images)
        classifier.calibrate(2.0, [0.5, -0.5], {"edema": 0.25}, rule="sensitivity", target=0.9)
        save(classifier.state_dict(), tmp_path / "model.pt")
        loaded = load_classifier(tmp_path / "model.pt")
        assert loaded.operating_point == {"thresholds": {"edema": 0.25}, "rule": "sensitivity", "target": 0.9}
        torch.testing.assert_close(loaded(images), (plain.logit() / 2 + torch.tensor([0.5, -0.5])).sigmoid())


def test_a_file_of_an_older_version_is_refused(classifier, tmp_path):
    state = classifier.state_dict()
    settings = json.loads(bytes(state["_extra_state"].tolist()))
    del settings["operating_point"]
    state["_extra_state"] = torch.frombuffer(bytearray(json.dumps(settings).encode()), dtype=torch.uint8)
    save(state, tmp_path / "model.pt")
    with pytest.raises(BundleError, match=r"model.pt was written before version 0.4.0, without calibration"):
        load_classifier(tmp_path / "model.pt")
