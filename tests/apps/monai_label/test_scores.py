import os

import numpy as np
import pytest
from PIL import Image

from cleft_bundle.apps.monai_label.lib.activelearning import ranked
from cleft_bundle.apps.monai_label.lib.activelearning.ranked import next_image
from cleft_bundle.apps.monai_label.lib.model import Loaded, ServedModel
from cleft_bundle.apps.monai_label.lib.scoring.table import ScoreTable
from cleft_bundle.checkpoints import load_classifier, save
from cleft_bundle.errors import BundleError
from cleft_bundle.files import sha256
from cleft_bundle.metrics.active_learning import coreset, entropy


@pytest.fixture
def model(model_pt, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(model_pt.read_bytes())
    return ServedModel(path, "cpu")


@pytest.fixture
def images(tmp_path):
    """Eight images and a file that is none, by id."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(8):
        file = tmp_path / f"p{number}.png"
        Image.fromarray(rng.integers(0, 256 - 25 * number, (56, 56), dtype=np.uint8)).save(file)
        files[f"p{number}"] = str(file)
    (tmp_path / "broken.png").write_bytes(b"no image")
    return {**files, "broken": str(tmp_path / "broken.png")}


@pytest.fixture
def table(tmp_path):
    return ScoreTable(tmp_path / "scores.npz")


@pytest.fixture
def scored(monkeypatch):
    """Collects the files that are put through the network."""
    seen, score = [], Loaded.score
    monkeypatch.setattr(Loaded, "score", lambda self, paths, *rest: seen.extend(paths) or score(self, paths, *rest))
    return seen


def other_weights(model):
    classifier = load_classifier(model.path)
    classifier.class_weights = classifier.class_weights.flip(0)
    save(classifier.state_dict(), model.path)


def test_each_image_is_scored_once_and_the_unreadable_one_has_its_reason(model, images, table, scored):
    told = []
    summary = table.complete(model, images, lambda done, total: told.append((done, total)))
    assert summary == {"images": 9, "scored": 9, "unreadable": 1}
    assert told == [(9, 9)]
    entries = ScoreTable(table.path).entries(model.digest, images)
    direct = model.score(list(images.values()))
    for number, image in enumerate(images):
        np.testing.assert_allclose(entries[image].probabilities, direct.probabilities[number], atol=1e-6)
        np.testing.assert_allclose(entries[image].embedding, direct.embeddings[number], atol=1e-6)
    assert entries["broken"].error == direct.failures[images["broken"]]
    assert [image for image, entry in entries.items() if entry.error] == ["broken"]
    scored.clear()
    assert table.complete(model, images)["scored"] == 0
    assert scored == []


def test_a_changed_file_and_a_new_one_are_scored_and_one_that_is_gone_is_forgotten(model, images, table, scored):
    table.complete(model, {image: file for image, file in images.items() if image != "p3"})
    scored.clear()
    os.utime(images["p1"], (1, 1))
    gone = images.pop("p2")
    assert set(table.entries(model.digest, images)) == set(images) - {"p1", "p3"}
    assert table.complete(model, images)["scored"] == 2
    assert sorted(scored) == [images["p1"], images["p3"]]
    assert "p2" not in ScoreTable(table.path).entries(model.digest, {**images, "p2": gone})


def test_another_classifier_makes_the_table_empty(model, images, table):
    table.complete(model, images)
    before, digest = table.entries(model.digest, images), model.digest
    other_weights(model)
    assert model.digest == sha256(model.path) != digest
    assert table.entries(model.digest, images) == {}
    assert table.complete(model, images)["scored"] == 9
    after = table.entries(model.digest, images)
    assert not np.allclose(after["p0"].probabilities, before["p0"].probabilities)
    np.testing.assert_allclose(after["p0"].embedding, before["p0"].embedding, atol=1e-6)


def test_a_torn_table_is_made_anew_and_holds_no_id(model, images, table, caplog):
    table.complete(model, images)
    content = table.path.read_bytes()
    with np.load(table.path) as file:
        assert not set(file["image"]) & set(images)
        assert not any("png" in str(value) for key in file.files for value in np.atleast_1d(file[key]))
    table.path.write_bytes(content[: len(content) // 2])
    assert table.entries(model.digest, images) == {}
    assert "cannot be read and is made anew" in caplog.text
    assert table.complete(model, images)["scored"] == 9


def test_an_interrupted_scoring_keeps_what_it_has_saved(model, images, table, monkeypatch, scored):
    monkeypatch.setattr("cleft_bundle.apps.monai_label.lib.scoring.table._BATCH", 2)
    monkeypatch.setattr("cleft_bundle.apps.monai_label.lib.scoring.table._SAVE_SECONDS", 0.0)

    def stop(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.complete(model, images, stop)
    assert len(table.entries(model.digest, images)) == 4
    scored.clear()
    table.complete(model, images)
    assert len(scored) == 5


def ask(strategy, model, table, images, labelled=(), shown=None, seed=0):
    return next_image(strategy, model, table, images, set(labelled), shown or {}, seed)


@pytest.mark.parametrize("strategy", ["entropy", "margin", "coreset", "random"])
def test_images_come_in_the_order_of_their_scores_until_none_is_left(strategy, model, images, table):
    table.complete(model, images)
    labelled, answers = [], []
    while answer := ask(strategy, model, table, images, labelled):
        answers.append(answer)
        labelled.append(answer["id"])
    readable = [image for image in images if strategy == "random" or image != "broken"]
    assert sorted(labelled) == sorted(readable)
    assert [answer["unlabelled"] for answer in answers] == list(range(len(readable), 0, -1))
    assert {answer["model"] for answer in answers} == {model.digest}
    entries = table.entries(model.digest, images)
    if strategy == "entropy":
        expected = {
            image: entropy(entries[image].probabilities[None].astype(float), "multilabel")[0] for image in readable
        }
        assert labelled == sorted(readable, key=lambda image: -expected[image])
        assert [answer["score"] for answer in answers] == pytest.approx([expected[image] for image in labelled])
    if strategy == "coreset":
        order, gains = coreset(np.stack([entries[i].embedding for i in readable]), np.zeros(8, bool))
        assert labelled == [readable[place] for place in order]
        assert [answer["score"] for answer in answers] == pytest.approx(gains)


@pytest.mark.parametrize("strategy", ["entropy", "coreset"])
def test_images_that_were_shown_wait_and_come_again(strategy, model, images, table, monkeypatch):
    table.complete(model, images)
    now = [1e9]
    monkeypatch.setattr(ranked.time, "time", lambda: now[0])
    shown, walked = {}, []
    for _ in range(8):
        image = ask(strategy, model, table, images, shown=shown)["id"]
        shown[image] = now[0]
        walked.append(image)
        now[0] += 1
    assert sorted(walked) == sorted(set(images) - {"broken"}), "nobody is shown one image twice"
    assert ask(strategy, model, table, images, shown=shown)["id"] == walked[0], "the one shown longest ago"
    now[0] += ranked.SHOWN_SECONDS
    assert ask(strategy, model, table, images, shown=shown)["id"] == ask(strategy, model, table, images)["id"]


def test_few_images_without_scores_are_scored_at_once_and_many_are_an_error(model, images, table, monkeypatch, scored):
    assert ask("random", model, table, images)["id"] in images
    assert scored == []
    ask("entropy", model, table, images)
    assert len(scored) == 9
    other_weights(model)
    monkeypatch.setattr(ranked, "SCORED_AT_ONCE", 8)
    with pytest.raises(BundleError, match=r"9 of 9 images have no scores by .*: POST /scoring/cleft_scores "):
        ask("margin", model, table, images)
    assert ask("random", model, table, images) is not None
    table.complete(model, images)
    assert ask("margin", model, table, images)["model"] == sha256(model.path)
