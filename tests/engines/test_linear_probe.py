import numpy as np
import pytest
import torch
from monai.transforms import Compose
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cleft_bundle.engines import LinearProbe, Probing
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import LabelEfficiency
from cleft_bundle.networks import ImageEncoder
from tests.conftest import TINY_VIT

NAMES = ["a", "b", "c"]


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(3, 5, (60, 8))


@pytest.fixture
def multiclass(features):
    return np.eye(3)[(features @ np.random.default_rng(1).normal(size=(8, 3))).argmax(axis=1)]


def scaled(features, rows):
    scaler = StandardScaler().fit(features[rows])
    return scaler.transform(features[rows]), scaler.transform(features)


def test_multiclass_equals_scikit_learn_by_hand(features, multiclass):
    multiclass[:5] = np.nan
    multiclass[5:8] = 0  # none of the classes: as unknown as NaN
    multiclass[8:11] = [1, 1, 0]  # of several: no example of its first
    multiclass[11:13][multiclass[11:13] == 0] = np.nan  # a positive beside unknowns is that class
    probe = LinearProbe("multiclass", NAMES, strength=0.3).fit(features, multiclass)
    train, everything = scaled(features, slice(11, None))
    model = LogisticRegression(C=0.3, max_iter=5000).fit(train, np.nan_to_num(multiclass[11:]).argmax(axis=1))
    np.testing.assert_allclose(probe.scores(features), model.predict_proba(everything), atol=1e-6)


def test_multilabel_equals_scikit_learn_by_hand_and_leaves_unknown_labels_out(features):
    labels = (np.random.default_rng(2).random((60, 3)) < 0.4).astype(float)
    labels[np.random.default_rng(3).random((60, 3)) < 0.2] = np.nan
    scores = LinearProbe("multilabel", NAMES, strength=1.0).fit(features, labels).scores(features)
    for column, score in zip(labels.T, scores.T, strict=True):
        known = ~np.isnan(column)
        train, everything = scaled(features, known)
        model = LogisticRegression(C=1.0, max_iter=5000).fit(train, column[known])
        np.testing.assert_allclose(score, model.predict_proba(everything)[:, 1], atol=1e-6)


def test_a_class_that_cannot_be_learnt_is_named(features, multiclass):
    multiclass[multiclass[:, 1] == 1] = [1, 0, 0]
    with pytest.raises(BundleError, match="60 training images: no positive image of b; take a larger fraction"):
        LinearProbe("multiclass", NAMES, 1.0).fit(features, multiclass)
    labels = np.column_stack([np.ones(60), multiclass[:, 0], np.where(np.arange(60) < 30, 1, np.nan)])
    with pytest.raises(BundleError, match="no negative image of a, c; "):
        LinearProbe("multilabel", NAMES, 1.0).fit(features, labels)


def item(number, split):
    """Two images a patient; the class can be seen in the image."""
    group = number // 2 % 3
    generator = torch.Generator().manual_seed(number)
    image = torch.randn(3, 28, 28, generator=generator) * 0.3 + torch.eye(3)[group][:, None, None]
    label = np.eye(3)[group].tolist()
    name = f"{split}{number}"
    return {"image": image, "name": name, "label": label, "patient_id": f"{split}{number // 2}", "caption": "x"}


@pytest.fixture
def splits():
    return {split: [item(n, split) for n in range(count)] for split, count in
            (("train", 120), ("validation", 42), ("test", 48))}  # fmt: skip


@pytest.fixture
def towers():
    return {"cleft": ImageEncoder(TINY_VIT, seed=1), "random": ImageEncoder(TINY_VIT, seed=2)}


def probing(splits, towers, tmp_path, **changes):
    (tmp_path / "cleft.pt").write_bytes(b"weights")
    values = {"evaluate_split": "test", "fractions": [1.0, 0.1, 0.5], "strengths": [1.0, 0.01]}
    common = {"class_names": NAMES, "task": "multiclass", "checkpoint": str(tmp_path / "cleft.pt"), "seed": 0}
    return Probing(towers, splits, **(values | common | changes))


def compare(splits, tmp_path, split="test"):
    setting = {"evaluate_split": split}
    return LabelEfficiency(str(tmp_path), "", "test", splits[split], setting, "phantoms", resamples=50)


def test_the_grid_reads_and_encodes_every_image_once_and_its_fractions_are_nested(
    splits, towers, tmp_path, monkeypatch, caplog
):
    seen, read, fitted = [], [], []
    original, fit = ImageEncoder.features, LinearProbe.fit
    monkeypatch.setattr(ImageEncoder, "features", lambda self, image: seen.append(len(image)) or original(self, image))
    monkeypatch.setattr(LinearProbe, "fit", lambda self, x, y: fitted.append(x) or fit(self, x, y))

    def count(data):
        read.append(1)
        return data

    with caplog.at_level("INFO"):
        points = probing(splits, towers, tmp_path).run(Compose([count]), "cpu", compare(splits, tmp_path), 16)
    images = sum(map(len, splits.values()))
    assert len(read) == images
    assert sum(seen) == images * len(towers)
    assert [(p.source, p.fraction, p.train_images) for p in points] == [
        (source, fraction, count) for source in towers for fraction, count in ((0.1, 12), (0.5, 60), (1.0, 120))
    ]
    rows = [{row.tobytes() for row in matrix} for matrix in fitted[: 2 * 3 : 2]]  # one strength of the first tower
    assert rows[0] < rows[1] < rows[2]
    assert {p.settings["C"] for p in points} <= {0.01, 1.0}
    assert len(points[0].settings["checkpoint"]) == 64
    assert "checkpoint" not in points[-1].settings
    assert points[2].estimates["auroc_macro"].n_patients == 24
    assert points[2].estimates["auroc_macro"].value > 0.7
    assert "linear probe cleft 10 % 12 1.000 (too few patients)" in " ".join(caplog.text.split())


def test_features_are_those_before_the_projection(splits, towers, tmp_path):
    features = probing(splits, towers, tmp_path)._features(Compose([]), "cpu", 16, 0)
    first = splits["test"][0]
    with torch.no_grad():
        expected = towers["random"].eval().features(first["image"][None])[0]
    np.testing.assert_allclose(features["random"][first["name"]], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": []}, "fractions and strengths: expected at least one number each"),
        ({"fractions": [2.0]}, "train_fraction=2.0"),
        ({"evaluate_split": "testing"}, "split 'testing' holds no image"),
        ({"class_names": [*NAMES, "d"]}, "10 % of the training patients .12 images.: no positive image of d; "),
    ],
)
def test_what_cannot_work_is_refused_before_any_image_is_read(changes, message, splits, towers, tmp_path):
    if "class_names" in changes:
        splits = {split: [{**i, "label": [*i["label"], 0.0]} for i in items] for split, items in splits.items()}
    with pytest.raises(BundleError, match=message):
        probing(splits, towers, tmp_path, **changes)


def test_choosing_and_reporting_on_the_same_patients_is_warned_of(splits, tmp_path, caplog):
    compare(splits, tmp_path, "validation")
    assert "on which C or the epoch is chosen too" in caplog.text


def test_images_without_a_usable_label_are_neither_read_nor_fitted_and_counted_once(splits, towers, tmp_path, caplog):
    for place, label in enumerate(([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [float("nan")] * 3)):
        splits["train"][place]["label"] = label
    probe = probing(splits, towers, tmp_path, fractions=[1.0, 0.5])
    assert [len(items) for items in probe.training.values()][-1] == 117
    assert {item["name"] for item in probe.training[1.0]} == {item["name"] for item in splits["train"][3:]}
    read = []
    probe._features(Compose([lambda data: read.append(1) or data]), "cpu", 16, 0)
    assert len(read) == 117 + 42 + 48
    assert caplog.text.count("left out of the training on labels: 3 of 120 images; 117 of 120 have a usable label") == 1


def test_a_class_that_stands_only_beside_others_cannot_be_learnt(splits, towers, tmp_path):
    for item in splits["train"]:
        item["label"] = [1.0, 0.0, 1.0] if item["label"][2] else item["label"]
    with pytest.raises(BundleError, match="no positive image of c; "):
        probing(splits, towers, tmp_path, fractions=[1.0])
    for item in splits["train"]:
        item["label"] = [0.0, 0.0, 0.0]
    with pytest.raises(BundleError, match="no label to train on: expected images that are positive for exactly one"):
        probing(splits, towers, tmp_path, fractions=[1.0])
