"""The one way to score images, by every form of a classifier's file."""

import importlib.util
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.checkpoints import FinetunedState, RunIdentity, TrainedOn, open_classifier, save
from cleft_bundle.checkpoints.finetuned import load_finetuned
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import Scorer
from cleft_bundle.metrics import Screening
from cleft_bundle.networks import FinetunedClassifier, ImageClassifier, ImageEncoder
from cleft_bundle.packaging import export_classifier
from cleft_bundle.transforms import build_transforms
from tests.data.radiographs import make_dicom

CALIBRATION = {"temperature": 0.5, "bias": [0.1, -0.2, 0.3]}
CHOSEN_BY = {"calibration": "bias", "temperature_interval": [0.4, 0.75], "calibration_images": 40}
EXPORTED = ["torchscript", "torch_export", "onnx", "onnx_int8"]
FORMS = ["model.pt", "finetuned.pt", *EXPORTED]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eight radiographs of very different brightness, one of them blank, and one that is no image."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for number in range(8):
        top = 4096 >> number // 2
        make_dicom(folder / f"{number}.dcm", rng.integers(0, top, (60, 50)).astype(np.uint16))
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(folder / "blank.png")
    (folder / "letter.dcm").write_text("no image")
    return [folder / name for name in (*(f"{number}.dcm" for number in range(5)), "letter.dcm", "blank.png",
                                       *(f"{number}.dcm" for number in range(5, 8)))]  # fmt: skip


@pytest.fixture(scope="module")
def models(classifier, tmp_path_factory):
    """One calibrated classifier in every form, and a fine-tuned one."""
    folder = tmp_path_factory.mktemp("models")
    stored = open_classifier_of(classifier, folder)
    tower = ImageEncoder(classifier.image_encoder.settings["backbone"], embedding_dim=16, seed=1)
    network = ImageClassifier(tower, classifier.class_names, "multilabel", classifier.preprocessing)
    tuned = FinetunedClassifier(network, provenance={"seen": {"images": 3}}).eval()
    tuned.calibrate(**CALIBRATION, thresholds={"edema": 0.5}, **CHOSEN_BY)
    nobody = TrainedOn({"train": [], "validation": [], "test": []})
    run = RunIdentity("tuned", [])
    save(FinetunedState(network, nobody, run, tuned).state_dict(), folder / "finetuned.pt")
    paths = {"model.pt": folder / "model.pt", "finetuned.pt": folder / "finetuned.pt"}
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        paths |= dict(zip(EXPORTED, export_classifier(stored, folder / "model", EXPORTED), strict=True))
    return paths


def open_classifier_of(classifier, folder):
    save(classifier.state_dict(), folder / "model.pt")
    stored = open_classifier(folder / "model.pt")
    stored.provenance = {"run": {"id": "0", "name": "trained"}}
    stored.calibrate(**CALIBRATION, thresholds={"edema": 0.5}, **CHOSEN_BY)
    save(stored.state_dict(), folder / "model.pt")
    return stored


def path_of(models, form):
    if form not in models:
        pytest.skip("needs the extra onnx")
    return models[form]


@pytest.mark.parametrize("form", FORMS)
def test_an_image_has_the_same_scores_whatever_stands_beside_it(form, models, files):
    path = path_of(models, form)
    found = [Scorer(path, batch_size=size).score({"image": file} for file in files) for size in (1, 3, 8)]
    scorer = Scorer(path)
    alone = [scorer.score([{"image": file}]).scores[0] for file in files]
    shuffled = scorer.score({"image": file} for file in files[::-1]).scores[::-1]
    for scores in (found[1].scores, found[2].scores, np.stack(alone), shuffled):
        np.testing.assert_allclose(scores, found[0].scores, atol=1e-5, rtol=0)
    assert np.nanstd(found[0].scores, axis=0).min() > 1e-3, "else constant scores would pass"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_it_is_and_keeps_the_contract(form, models, files):
    scorer = Scorer(path_of(models, form))
    assert scorer.class_names == ["edema", "pleural effusion", "no finding"]
    assert scorer.task == "multilabel"
    assert scorer.preprocessing["image_size"] == 56
    assert scorer.thresholds == {"edema": 0.5}
    assert scorer.operating_point["calibration"] == "bias"
    assert scorer.provenance["run"]["name"] == ("tuned" if form == "finetuned.pt" else "trained")
    assert scorer.calibration.temperature == 0.5
    assert scorer.calibration.bias == pytest.approx(CALIBRATION["bias"])
    assert (scorer.calibration.low, scorer.calibration.high, scorer.calibration.n_images) == (0.4, 0.75, 40)
    found = scorer.score([{"image": str(file), "patient_id": "somebody"} for file in files])
    assert found.scores.dtype == found.logits.dtype == np.float64
    assert found.errors[5].startswith("is not an image")
    assert found.errors[6] == "blank"
    readable = [number for number, error in enumerate(found.errors) if not error]
    assert readable == [0, 1, 2, 3, 4, 7, 8, 9]
    assert np.isnan(found.scores[[5, 6]]).all()
    assert np.isnan(found.logits[[5, 6]]).all()
    expected = scorer.calibration(found.logits[readable])
    np.testing.assert_allclose(found.scores[readable], expected, atol=1e-12 if form != "torch_export" else 1e-6)


@pytest.mark.parametrize("form", ["torchscript", "torch_export", "onnx"])
def test_exports_give_the_logits_and_scores_of_their_model(form, models, files):
    items = [{"image": file} for file in files]
    expected, found = Scorer(models["model.pt"]).score(items), Scorer(path_of(models, form)).score(items)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4, rtol=0)
    assert found.errors == expected.errors


def test_scores_are_those_of_the_network_and_embeddings_those_of_its_tower(models, files):
    classifier = open_classifier(models["model.pt"])
    transform = build_transforms(classifier.preprocessing["transforms"])
    images = torch.stack([transform({"image": str(file)})["image"] for file in files[:5]])
    with torch.no_grad():
        scores, embeddings = classifier(images), classifier.image_encoder(images)
    found = Scorer(classifier).score([{"image": file} for file in files], embeddings=True)
    np.testing.assert_allclose(found.scores[:5], scores, atol=1e-6)
    np.testing.assert_allclose(found.embeddings[:5], embeddings, atol=1e-6)
    assert np.isnan(found.embeddings[[5, 6]]).all()


def test_a_network_in_training_mode_scores_as_in_evaluation_and_is_left_as_it_was(models, files):
    classifier = open_classifier(models["model.pt"])
    classifier.image_encoder.projection = torch.nn.Sequential(
        torch.nn.Linear(32, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5)
    )
    items = [{"image": file} for file in files]
    expected = Scorer(classifier.eval()).score(items).scores
    statistics = classifier.image_encoder.projection[1].running_mean.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Scorer(classifier.train(), batch_size=3).score(items).scores
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert classifier.training
    assert torch.equal(classifier.image_encoder.projection[1].running_mean, statistics)


def test_workers_and_a_file_that_is_there_twice(models, files):
    items = [{"image": file} for file in files]
    expected = Scorer(models["model.pt"]).score(items * 2)
    found = Scorer(models["model.pt"], num_workers=1).score(items * 2, progress="scoring")
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.scores[:10], found.scores[10:], atol=1e-6)
    assert len(found) == 20


def test_nothing_to_score_and_nothing_readable(models, files):
    scorer = Scorer(models["model.pt"])
    assert scorer.score([]).scores.shape == (0, 3)
    found = scorer.score([{"image": files[5]}], embeddings=True)
    assert np.isnan(found.scores).all()
    assert found.embeddings.shape == (1, 0)


def test_a_classifier_without_calibration_says_so(classifier, files, tmp_path, caplog):
    save(classifier.state_dict(), tmp_path / "model.pt")
    scorer = Scorer(tmp_path / "model.pt")
    assert scorer.calibration is None
    assert scorer.thresholds is None
    assert "model.pt is not calibrated" in caplog.text
    found = scorer.score([{"image": files[0]}])
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-found.logits)), atol=1e-12)


def test_a_finetuned_file_of_before_is_uncalibrated_and_still_loads(models, files, tmp_path, caplog):
    state = torch.load(models["finetuned.pt"])
    del state["deployment"]
    save(state, tmp_path / "old.pt")
    scorer = Scorer(tmp_path / "old.pt")
    assert "old.pt is not calibrated" in caplog.text
    assert scorer.calibration is None
    np.testing.assert_allclose(
        scorer.score([{"image": files[0]}]).logits, Scorer(models["finetuned.pt"]).score([{"image": files[0]}]).logits
    )
    assert isinstance(load_finetuned(tmp_path / "old.pt"), ImageClassifier)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pt", None, "none.pt does not exist"),
        ("text.pt", b"no model", "text.pt cannot be read"),
        ("text.onnx", b"no model", "text.onnx is no ONNX model"),
        ("empty.onnx", b"", "empty.onnx is no ONNX model"),
    ],
)
def test_what_is_no_classifier_is_refused_in_one_line(name, content, message, tmp_path):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        Scorer(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_trained_network_is_no_classifier(tmp_path):
    save({"weights": {}}, tmp_path / "cleft.pt")
    with pytest.raises(BundleError, match=r"cleft.pt is not a classifier of this bundle"):
        Scorer(tmp_path / "cleft.pt")


def test_torchscript_without_a_description_is_refused(tmp_path):
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "bare.ts")
    with pytest.raises(BundleError, match=r"bare.ts does not describe its classes and preprocessing"):
        Scorer(tmp_path / "bare.ts")


def test_thresholds_of_sensitivity_hold_in_float32_onnx_and_at_any_batch_size(classifier, files, tmp_path):
    """Chosen on validation in double precision, they call the same images in every form."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    rng = np.random.default_rng(3)
    images = [file for file in files if file.name not in ("letter.dcm", "blank.png")]
    for number in range(32):
        make_dicom(tmp_path / f"{number}.dcm", rng.integers(0, rng.integers(100, 4096), (60, 50)).astype(np.uint16))
        images.append(tmp_path / f"{number}.dcm")
    items = [{"image": image} for image in images]
    labels = rng.integers(0, 2, (len(images), 3)).astype(float)
    save(classifier.state_dict(), tmp_path / "model.pt")
    scorer = Scorer(tmp_path / "model.pt")
    screening = Screening("bias", "sensitivity", 0.9)
    chosen = screening.choose(scorer.score(items).logits, labels, classifier.class_names, "multilabel")
    scale = chosen.calibration
    scorer.network.calibrate(scale.temperature, scale.bias, chosen.thresholds, **asdict(screening))
    save(scorer.network.state_dict(), tmp_path / "model.pt")
    exports = export_classifier(scorer.network, tmp_path / "model", ["onnx", "torchscript"])
    calls = []
    for path in (tmp_path / "model.pt", *exports):
        for size in (1, 3, 8):
            found = Scorer(path, batch_size=size)
            least = np.array([found.thresholds[name] for name in classifier.class_names])
            calls.append(found.score(items).scores >= least)
    for called in calls:
        assert np.array_equal(called, calls[0])
    reached = (calls[0] & (labels == 1)).sum(axis=0) / labels.sum(axis=0)
    assert (reached >= 0.9).all()
    fewest = np.ceil(0.9 * labels.sum(axis=0)) / labels.sum(axis=0)
    np.testing.assert_allclose(reached, fewest, err_msg="no threshold is lower than it has to be")
