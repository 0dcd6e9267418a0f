import copy

import pytest
import torch

from cleft_bundle.checkpoints import TrainedOn, TrainedState, image_tower, image_towers, load_finetuned, roles, save
from cleft_bundle.checkpoints.finetuned import FinetunedState
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageClassifier, ImageEncoder
from tests.conftest import TINY_VIT

SPLITS = {"train": [{"patient_id": "a", "name": "1", "caption": "x"}], "validation": [], "test": []}


@pytest.fixture
def folder(tmp_path):
    ImageEncoder(TINY_VIT, seed=7).backbone.save_pretrained(tmp_path / "vit")
    return str(tmp_path / "vit")


@pytest.fixture
def cleft(make_network, tmp_path):
    network = make_network()
    with torch.no_grad():
        for parameter in network.image_encoder.parameters():
            parameter.add_(0.1)
    save(TrainedState(network).state_dict(), tmp_path / "cleft.pt")
    return network


def test_the_tower_of_a_checkpoint_needs_no_language_model(cleft, images, tmp_path):
    config = ImageEncoder(TINY_VIT, embedding_dim=8)
    before = copy.deepcopy(config.state_dict())
    tower = image_tower("cleft", config, str(tmp_path / "cleft.pt"))
    torch.testing.assert_close(tower.eval()(images), cleft.image_encoder.eval()(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in config.state_dict().items())


def test_backbone_and_random_share_the_architecture_only(folder, images, tmp_path):
    config = ImageEncoder(folder, embedding_dim=8).eval()
    backbone = image_tower("backbone", config, "nowhere.pt").eval()
    torch.testing.assert_close(backbone.features(images), config.features(images))
    random = image_tower("random", config, "nowhere.pt", seed=1).eval()
    assert {n: t.shape for n, t in random.named_parameters()} == {n: t.shape for n, t in config.named_parameters()}
    assert (random.features(images) - config.features(images)).abs().max() > 0.1
    again = image_tower("random", config, "nowhere.pt", seed=1).eval()
    torch.testing.assert_close(again.features(images), random.features(images))


def test_sources_that_are_the_same_appear_once_and_the_log_says_why(cleft, folder, tmp_path, caplog):
    sources, path = ["cleft", "backbone", "random"], str(tmp_path / "cleft.pt")
    assert list(image_towers(sources, ImageEncoder(TINY_VIT, embedding_dim=8), path)) == ["cleft", "random"]
    assert "source backbone: dinov2_with_registers from a config has random weights" in caplog.text
    frozen = ImageEncoder(folder, embedding_dim=8, trainable=False)
    assert list(image_towers(sources, frozen, path)) == ["backbone", "random"]
    assert "source cleft: its image backbone was frozen" in caplog.text


def test_what_does_not_fit_is_one_line(cleft, tmp_path):
    config = ImageEncoder(TINY_VIT, embedding_dim=8)
    with pytest.raises(BundleError, match=r"checkpoint .*missing\.pt does not exist"):
        image_tower("cleft", config, str(tmp_path / "missing.pt"))
    with pytest.raises(BundleError, match=r"cleft\.pt: the checkpoint does not fit the network: 2 parameters"):
        image_tower("cleft", ImageEncoder(TINY_VIT, embedding_dim=4), str(tmp_path / "cleft.pt"))
    with pytest.raises(BundleError, match="source: expected one of cleft, backbone, random, got 'clip'"):
        image_tower("clip", config, "")
    with pytest.raises(BundleError, match="sources: expected some of cleft, backbone, random"):
        image_towers([], config, "")


def test_a_finetuned_classifier_comes_back_from_its_file_alone(images, tmp_path):
    network = ImageClassifier(ImageEncoder(TINY_VIT, seed=1), ["a", "b"], "multilabel", {"image_size": 28}, seed=2)
    path = tmp_path / "finetuned.pt"
    save(FinetunedState(network, TrainedOn(SPLITS)).state_dict(), path)
    loaded = load_finetuned(path)
    torch.testing.assert_close(loaded(images), network.eval()(images))
    assert loaded.settings == network.settings
    assert roles(path, SPLITS["train"])["weights"] == 1


def test_other_files_are_no_finetuned_classifier(cleft, tmp_path):
    with pytest.raises(BundleError, match=r"cleft\.pt is not a fine-tuned classifier of format 1"):
        load_finetuned(tmp_path / "cleft.pt")
    network = ImageClassifier(ImageEncoder(TINY_VIT), ["a", "b"], "multilabel")
    state = FinetunedState(network, TrainedOn(SPLITS)).state_dict()
    del state["weights"]["head.bias"]
    save(state, tmp_path / "broken.pt")
    with pytest.raises(BundleError, match="does not fit its own settings"):
        load_finetuned(tmp_path / "broken.pt")
