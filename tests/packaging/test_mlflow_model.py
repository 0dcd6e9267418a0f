import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cleft_bundle.checkpoints import mlflow_model as former
from cleft_bundle.errors import BundleError
from cleft_bundle.packaging.mlflow_model import ServedClassifier, log_classifier
from cleft_bundle.transforms import build_transforms
from tests import processes
from tests.data.radiographs import make_dicom

mlflow = pytest.importorskip("mlflow", reason="needs the extra train")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(0).integers(0, 4096, (60, 50)).astype(np.uint16)
    make_dicom(folder / "one.dcm", pixels)
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "two.png")
    (folder / "three.dcm").write_bytes(b"no image at all")
    return [folder / name for name in ("one.dcm", "two.png", "three.dcm")]


@pytest.fixture(scope="module")
def expected(classifier, files):
    transform = build_transforms(classifier.preprocessing["transforms"])
    images = torch.stack([transform({"image": str(file)})["image"] for file in files[:2]])
    with torch.no_grad():
        return classifier(images).numpy()


@pytest.fixture(scope="module")
def registry(model_pt, classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95, "n_images": 9, "n_patients": 9}
    unknown = estimate | {"low": None, "high": None}
    report = {
        "dataset": {"name": "phantoms", "split": "test", "fingerprint": "f", "images": 9, "patients": 9},
        "metrics": {"auroc/edema": estimate, "auroc_macro": unknown},
        "prompts": {name: [name] for name in classifier.class_names},
    }
    (folder / "report.json").write_text(json.dumps(report))
    uri = f"sqlite:///{folder}/mlruns.db"
    before, cwd = os.environ.get("MLFLOW_TRACKING_URI"), os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    version = log_classifier(model_pt, folder / "report.json", uri)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before, "other runs of this process must not land in the registry"
    assert not os.listdir()
    os.chdir(cwd)
    assert list((folder / "mlruns").rglob("model.pt")), "artifacts lie beside the database"
    return uri, version, folder


def test_bytes_and_paths_have_the_same_scores_and_a_bad_file_its_reason(classifier, files, expected):
    served = ServedClassifier(classifier)
    by_path = served.predict(pd.DataFrame({"path": [str(files[2]), *map(str, files[:2])]}))
    by_bytes = served.predict(pd.DataFrame({"image": [file.read_bytes() for file in (files[2], *files[:2])]}))
    for table in (by_path, by_bytes):
        assert list(table) == [*classifier.class_names, "error"]
        np.testing.assert_allclose(table[classifier.class_names][1:].astype(float), expected, atol=1e-6)
        assert table[classifier.class_names].iloc[0].isna().all()
        assert table["error"].iloc[0]
        assert list(table["error"][1:]) == ["", ""]
    assert str(files[2].parent) not in by_bytes["error"].iloc[0]
    assert tempfile.gettempdir() not in by_bytes["error"].iloc[0]


def test_models_that_were_registered_before_find_their_loader(model_pt, files, expected, classifier):
    """MLflow's files name the module in which it lay in 0.6.0."""
    table = former._load_pyfunc(str(model_pt)).predict(pd.DataFrame({"path": list(map(str, files[:2]))}))
    np.testing.assert_allclose(table[classifier.class_names], expected, atol=1e-6)


def test_a_row_with_nothing_says_so(classifier, files):
    table = ServedClassifier(classifier).predict(pd.DataFrame({"path": [None, str(files[0])], "image": [None, None]}))
    assert table["error"].tolist() == ["the row has neither bytes in 'image' nor a 'path'", ""]


def test_more_images_than_a_batch_keep_their_order(classifier, files, expected):
    table = ServedClassifier(classifier).predict(pd.DataFrame({"path": [str(files[n % 2]) for n in range(11)]}))
    np.testing.assert_allclose(table[classifier.class_names], np.tile(expected, (6, 1))[:11], atol=1e-6)


@pytest.mark.slow
def test_the_registered_model_has_signature_example_and_metrics(registry, files, expected, classifier, monkeypatch):
    uri, version, _ = registry
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pyfunc.load_model(f"models:/cleft_bundle/{version}")
    assert [(c.name, c.type.name) for c in model.metadata.signature.inputs] == [("image", "binary"), ("path", "string")]
    assert model.metadata.signature.outputs.input_names() == [*classifier.class_names, "error"]
    assert isinstance(model.input_example["image"].iloc[0], bytes)
    assert model.metadata.metadata["class_names"] == classifier.class_names
    table = model.predict(pd.DataFrame({"path": list(map(str, files[:2]))}))
    np.testing.assert_allclose(table[classifier.class_names], expected, atol=1e-6)
    run = mlflow.MlflowClient(uri).get_run(model.metadata.run_id)
    assert run.data.metrics == {
        "auroc/edema": 0.9,
        "auroc_low/edema": 0.8,
        "auroc_high/edema": 0.95,
        "auroc_macro": 0.9,
    }
    assert run.data.params["evaluated_split"] == "test"


def commands(registry, *arguments):
    uri, version, _ = registry
    command = [sys.executable, "-m", "mlflow", "models", arguments[0], "-m", f"models:/cleft_bundle/{version}"]
    return [*command, "--env-manager", "local", *arguments[1:]], os.environ | {"MLFLOW_TRACKING_URI": uri}


@pytest.mark.slow
def test_mlflow_models_predict_takes_paths(registry, files, expected, classifier, tmp_path):
    (tmp_path / "in.csv").write_text("path\n" + "\n".join(map(str, files)))
    command, environment = commands(
        registry, "predict", "-t", "csv", "-i", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.json")
    )
    done = processes.run(command[1:], cwd=registry[2], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert [row["error"] for row in rows[:2]] == ["", ""]
    scores = [[row[name] for name in classifier.class_names] for row in rows]
    np.testing.assert_allclose(np.array(scores[:2]), expected, atol=1e-6)
    assert rows[2]["error"]


@pytest.mark.slow
def test_mlflow_models_serve_takes_bytes(registry, files, expected, classifier, free_port, tmp_path):
    command, environment = commands(registry, "serve", "-h", "127.0.0.1", "-p", str(free_port))
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=registry[2], stdout=log, stderr=log)
    try:
        body = {"dataframe_records": [{"image": base64.b64encode(file.read_bytes()).decode()} for file in files]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{free_port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        wait_for(f"http://127.0.0.1:{free_port}/ping", server, tmp_path / "log")
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            rows = json.load(answer)["predictions"]
    finally:
        server.terminate()
        server.wait()
    assert [row["error"] for row in rows[:2]] == ["", ""]
    scores = [[row[name] for name in classifier.class_names] for row in rows]
    np.testing.assert_allclose(np.array(scores[:2]), expected, atol=1e-6)
    assert scores[2] == [None] * 3
    assert rows[2]["error"]


def wait_for(url, server, log, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url)  # noqa: S310 - loopback
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")


def test_a_report_of_other_classes_is_refused(model_pt, tmp_path):
    with pytest.raises(BundleError, match=r"report.json does not exist: evaluate the checkpoint"):
        log_classifier(model_pt, tmp_path / "report.json", "sqlite:///unused.db")
    (tmp_path / "report.json").write_text(json.dumps({"prompts": {"mass": ["mass"]}}))
    with pytest.raises(BundleError, match=r"is of other classes \(mass\) than the classifier"):
        log_classifier(model_pt, tmp_path / "report.json", "sqlite:///unused.db")
