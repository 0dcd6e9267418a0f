"""What a classifier learns of its validation images, and whom it flags."""

import importlib.util
import json

import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from scipy.spatial.distance import mahalanobis

from cleft_bundle.checkpoints import FinetunedState, RunIdentity, TrainedOn, load_deployed, save
from cleft_bundle.engines import classifier_builder
from cleft_bundle.engines.classifier_builder import learn_typicality
from cleft_bundle.engines.typicality import MIN_PATIENTS, fit_typicality
from cleft_bundle.inference import Predictor, Scorer
from cleft_bundle.networks import FinetunedClassifier, ImageClassifier, ImageEncoder, ZeroShotClassifier
from cleft_bundle.networks.classifiers.typicality import UNUSUAL_BELOW, Typicality
from cleft_bundle.packaging import export_classifier
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom


def images(seed, count=400, shift=0.0):
    """Embeddings of two classes that differ in mean, with a common covariance; two images of each patient."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 2, count)
    mixing = np.diag(np.linspace(0.2, 2, 8))
    rows = rng.normal(size=(count, 8)) @ mixing + 4 * number[:, None] * np.eye(8)[0] + shift
    return rows, np.eye(2)[number], [f"p{place // 2}" for place in range(count)]


@pytest.fixture(scope="module")
def known():
    return fit_typicality(*images(0))


def test_five_in_a_hundred_new_patients_are_flagged_and_strangers_all(known):
    flagged = []
    for seed in range(1, 9):
        rows, _, patients = images(seed)
        unusual = known(torch.from_numpy(rows)).numpy() < UNUSUAL_BELOW
        flagged.append(len({one for one, flag in zip(patients, unusual, strict=True) if flag}) / 200)
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.025)
    strangers = known(torch.from_numpy(images(0, shift=8.0)[0])).numpy()
    assert (strangers < UNUSUAL_BELOW).all()
    assert np.ptp(strangers) > 0, "how far they are is told beyond the last quantile, too"


def test_typicality_is_the_share_of_patients_and_falls_with_distance(known):
    rows, _, patients = images(9, count=4000)
    share = known(torch.from_numpy(rows)).numpy()
    worst = np.array([share[number : number + 2].min() for number in range(0, len(rows), 2)])
    assert patients[0] == patients[1]
    for level in (0.1, 0.25, 0.5, 0.75):
        assert np.mean(worst < level) == pytest.approx(level, abs=0.06)
    line = torch.linspace(0, 40, 50, dtype=torch.float64)[:, None] * torch.ones(8, dtype=torch.float64)
    far = known(line[5:]).numpy()
    assert (np.diff(far) <= 0).all()
    assert share.min() >= 0
    assert share.max() <= 1


def test_distances_are_those_of_their_definitions(known):
    rows, _, _ = images(10, count=20)
    found = known.distances(torch.from_numpy(rows)).numpy()
    inverse = (known.whitening.T @ known.whitening).double().numpy()
    background = (known.centre_whitening.T @ known.centre_whitening).double().numpy()
    for row, (nearest, relative, neighbour) in zip(rows, found, strict=True):
        by_class = min(mahalanobis(row, mean, inverse) for mean in known.means.double().numpy())
        assert nearest == pytest.approx(by_class, rel=1e-5)
        others = mahalanobis(row, known.centre.double().numpy(), background)
        assert relative == pytest.approx(by_class**2 - others**2, rel=1e-3, abs=1e-3)
        assert neighbour == pytest.approx(
            np.linalg.norm(known.neighbours.double().numpy() - row, axis=1).min(), rel=1e-6
        )


def test_covariance_and_means_are_those_of_the_classes(known):
    rows, labels, _ = images(0)
    expected = [rows[labels[:, place] == 1].mean(axis=0) for place in (0, 1)]
    np.testing.assert_allclose(known.means, expected, rtol=1e-4, atol=1e-5)
    residuals = np.concatenate([rows[labels[:, place] == 1] - expected[place] for place in (0, 1)])
    covariance = np.linalg.inv((known.whitening.T @ known.whitening).double().numpy())
    np.testing.assert_allclose(np.diag(covariance), np.mean(residuals**2, axis=0), rtol=0.1, atol=0.05)


def test_no_neighbour_is_a_single_patient(known):
    rows, _, _ = images(0)
    distances = np.linalg.norm(rows[:, None] - known.neighbours.double().numpy(), axis=2)
    assert len(known.neighbours) > 10
    assert distances.min() > 1e-3
    assert np.bincount(distances.argmin(axis=1)).min() >= 5


def test_too_few_patients_and_a_collapsed_network_say_why(caplog):
    rows, labels, _ = images(0)
    few = [number % (MIN_PATIENTS - 1) for number in range(len(rows))]
    assert fit_typicality(rows, labels, few) is None
    assert f"{MIN_PATIENTS - 1} validation patients are too few" in caplog.text
    alike = np.ones_like(rows) + 1e-7 * rows
    assert fit_typicality(alike, labels) is None
    assert "are alike" in caplog.text


@pytest.mark.parametrize("case", ["no label", "one class", "unknown labels", "not finite", "one image in two classes"])
def test_labels_of_any_kind_still_tell_strangers(case):
    rows, labels, patients = images(0)
    if case == "no label":
        labels = np.zeros_like(labels)
    elif case == "one class":
        labels = np.eye(2)[np.zeros(len(rows), int)]
    elif case == "unknown labels":
        labels = np.full_like(labels, np.nan)
    elif case == "not finite":
        rows = np.concatenate([rows, np.full((3, 8), np.nan)])
        labels, patients = np.concatenate([labels, labels[:3]]), [*patients, "a", "b", "c"]
    else:
        labels = np.ones_like(labels)
    found = fit_typicality(rows, labels, patients)
    flagged = found(torch.from_numpy(images(3)[0])).numpy() < UNUSUAL_BELOW
    assert flagged.mean() < 0.1
    assert (found(torch.from_numpy(images(0, shift=8.0)[0])).numpy() < UNUSUAL_BELOW).all()


def test_it_is_kept_in_the_files_and_scores_tell_it(classifier, tmp_path):
    make_dicom(tmp_path / "a.dcm")
    rng = np.random.default_rng(0)
    stored = ZeroShotClassifier(
        classifier.image_encoder, classifier.class_names, "multilabel", classifier.preprocessing
    )
    stored.load_state_dict(classifier.state_dict())
    item = [{"image": tmp_path / "a.dcm"}, {"image": tmp_path / "gone.dcm"}]
    assert Scorer(stored).score(item).typicality is None
    own = Scorer(stored).score(item, embeddings=True).embeddings[0]
    for shift, unusual in ((0.0, False), (1.0, True)):
        rows = own + shift + 0.05 * rng.normal(size=(60, len(own)))
        learn_typicality(stored, rows, np.ones((60, 3)), None)
        save(stored.state_dict(), tmp_path / "model.pt")
        found = Scorer(load_deployed(tmp_path / "model.pt")).score(item)
        assert found.unusual.tolist() == [unusual, False]
        assert np.isnan(found.typicality[1])
        assert found.typicality[0] == pytest.approx(float(stored.typicality(torch.from_numpy(own)[None])), rel=1e-3)


def test_inference_writes_what_the_scorer_says(classifier, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        make_dicom(tmp_path / "images" / f"{name}.dcm")
    stored = ZeroShotClassifier(
        classifier.image_encoder, classifier.class_names, "multilabel", classifier.preprocessing
    )
    stored.load_state_dict(classifier.state_dict())
    learn_typicality(stored, np.random.default_rng(0).normal(size=(60, 16)), np.ones((60, 3)), None)
    save(stored.state_dict(), tmp_path / "model.pt")
    found = Scorer(tmp_path / "model.pt").score({"image": path} for path in sorted((tmp_path / "images").iterdir()))
    paths = {"dataset_dir": tmp_path / "images", "model_path": tmp_path / "model.pt", "output_dir": tmp_path / "eval"}
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        num_workers=0,
        structured_reports=bool(importlib.util.find_spec("highdicom")),
        **{key: str(path) for key, path in paths.items()},
    )
    workflow.initialize()
    workflow.run()
    rows = json.loads((tmp_path / "eval" / "predictions.json").read_text())["predictions"]
    assert [row["typicality"] for row in rows] == pytest.approx(found.typicality, rel=1e-6)
    assert [row["unusual"] for row in rows] == found.unusual.tolist()
    for report in (tmp_path / "eval" / "structured_reports").glob("*.dcm"):
        assert ("LIMITATION" in str(pydicom.dcmread(report))) == found.unusual[0]
    images = [tmp_path / "images" / "a.dcm", tmp_path / "gone.dcm"]
    unusual = Predictor(tmp_path / "model.pt").predict(images).scores["unusual"]
    assert unusual.tolist() == [found.unusual[0], None], "nothing is known of what cannot be read"


def test_a_finetuned_file_keeps_it_and_an_older_one_says_not_known(classifier, tmp_path):
    tower = ImageEncoder(classifier.image_encoder.settings["backbone"], embedding_dim=16)
    network = ImageClassifier(tower, classifier.class_names, "multilabel", classifier.preprocessing)
    tuned, nobody = FinetunedClassifier(network).eval(), TrainedOn({"train": [], "validation": [], "test": []})
    for rows in (None, np.random.default_rng(0).normal(size=(50, 32))):
        learn_typicality(tuned, rows, np.ones((50, 3)), None)
        save(FinetunedState(network, nobody, RunIdentity("tuned", []), tuned).state_dict(), tmp_path / "finetuned.pt")
        found = load_deployed(tmp_path / "finetuned.pt").typicality
        assert (found is None) == (rows is None)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, tuned.typicality.state_dict()[name])


def test_a_classifier_that_is_built_anew_forgets_what_it_knew(classifier, monkeypatch):
    stored = ZeroShotClassifier(
        classifier.image_encoder, classifier.class_names, "multilabel", classifier.preprocessing
    )
    learn_typicality(stored, np.random.default_rng(0).normal(size=(50, 16)), np.ones((50, 3)), None)
    assert isinstance(stored.typicality, Typicality)
    monkeypatch.setattr(classifier_builder, "fit_typicality", lambda *_: None)
    learn_typicality(stored, np.zeros((50, 16)), np.ones((50, 3)), None)
    assert stored.typicality is None
    assert not any(name.startswith("typicality") for name in stored.state_dict())


@pytest.mark.parametrize("form", ["torchscript", "torch_export"])
def test_exported_files_score_the_same_and_say_that_they_do_not_know(form, classifier, tmp_path):
    make_dicom(tmp_path / "a.dcm")
    settings = {"task": "multilabel", "preprocessing": classifier.preprocessing}
    stored = ZeroShotClassifier(classifier.image_encoder, classifier.class_names, **settings)
    stored.load_state_dict(classifier.state_dict())
    learn_typicality(stored, np.random.default_rng(0).normal(size=(50, 16)), np.ones((50, 3)), None)
    (path,) = export_classifier(stored.eval(), tmp_path / "model", [form])
    found = Scorer(path).score([{"image": tmp_path / "a.dcm"}])
    assert found.typicality is None
    assert found.unusual is None
    expected = Scorer(stored).score([{"image": tmp_path / "a.dcm"}])
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert expected.unusual.tolist() in ([True], [False])
