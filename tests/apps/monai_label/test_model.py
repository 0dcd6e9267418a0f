import copy

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.checkpoints import save, sha256
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms import build_transforms


@pytest.fixture
def path(classifier, tmp_path):
    save(classifier.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def other(classifier, tmp_path):
    """Another classifier of the same classes."""
    changed = copy.deepcopy(classifier)
    changed.class_weights = -changed.class_weights
    save(changed.state_dict(), tmp_path / "other.pt")
    return tmp_path / "other.pt"


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("one.png", "three.png"):
        Image.fromarray(generator.integers(0, 255, (40, 30), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "two.dcm").write_bytes(b"no image")
    return [tmp_path / name for name in ("one.png", "two.dcm", "three.png")]


def test_scores_are_those_of_the_classifier_and_unreadable_images_keep_their_place(classifier, path, files):
    found = ServedModel(path, "cpu").score(files)
    transform = build_transforms(classifier.preprocessing["transforms"])
    images = torch.stack([transform({"image": str(files[place])})["image"] for place in (0, 2)])
    with torch.no_grad():
        np.testing.assert_allclose(found.probabilities[[0, 2]], classifier(images).numpy(), atol=1e-6)
        np.testing.assert_allclose(found.embeddings[[0, 2]], classifier.image_encoder(images).numpy(), atol=1e-6)
    assert np.isnan(found.probabilities[1]).all()
    assert np.isnan(found.embeddings[1]).all()
    assert list(found.failures) == [str(files[1])]
    assert "is not an image that is known here" in found.failures[str(files[1])]
    assert found.digest == sha256(path)


def test_a_replaced_file_is_served_without_a_restart_and_the_old_one_is_kept(path, other, files):
    served = ServedModel(path, "cpu")
    before, old = served.score(files[:1]), served.digest
    assert served.current() is served.current()
    assert served.publish(other) == sha256(other) == served.digest != old
    assert sha256(served.backup) == old
    assert not np.allclose(served.score(files[:1]).probabilities, before.probabilities)
    assert served.publish(served.backup) == old, "the way back"
    assert sha256(served.backup) == sha256(other)


def test_another_process_may_replace_the_file(path, other):
    server, trainer = ServedModel(path, "cpu"), ServedModel(path, "cpu")
    trainer.publish(other)
    assert server.digest == sha256(other)


def test_a_file_that_does_not_fit_is_refused_at_the_start(classifier, path):
    state = classifier.state_dict()
    save({name: value for name, value in state.items() if name != "class_weights"}, path)
    with pytest.raises(BundleError, match=r"does not fit its own settings: .*class_weights"):
        ServedModel(path, "cpu")
    with pytest.raises(BundleError, match="does not exist"):
        ServedModel(path.with_name("no.pt"), "cpu")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_is_broken_later_leaves_the_old_classifier_serving(path, content, caplog):
    served = ServedModel(path, "cpu")
    old = served.digest
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert served.digest == old
    assert "goes on serving" in caplog.text


def test_a_classifier_of_other_classes_is_not_published(classifier, path, tmp_path):
    changed = copy.deepcopy(classifier)
    changed.class_names = ["edema", "ascites", "no finding"]
    save(changed.state_dict(), tmp_path / "strange.pt")
    served = ServedModel(path, "cpu")
    old = served.digest
    with pytest.raises(BundleError, match="ascites"):
        served.publish(tmp_path / "strange.pt")
    assert served.digest == sha256(path) == old
    assert not served.backup.exists()
