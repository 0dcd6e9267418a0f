"""No password and no patient in anything that a run writes: files, MLflow's database and artifacts, the console."""

import os
import socket

import pandas as pd
import pytest

from tests import processes
from tests.configs.test_identifiers import SECRETS as PATIENTS
from tests.configs.test_identifiers import with_canaries
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PASSWORD = "xyzzy-plugh-1976"  # noqa: S105 - it opens nothing
PLACE = f"http://reader:{PASSWORD}@127.0.0.1"
NAMED = f"{PLACE}/images?access_token={PASSWORD}&set=#1"
SMALL = {
    "image_backbone#num_hidden_layers": 1,
    "image_backbone#hidden_size": 48,
    "image_backbone#image_size": 56,
    "image_size": 56,
    "batch_size": 8,
    "num_workers": 0,
    "epochs": 1,
    "val_interval": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files and a table that are full of identifiers; one class has a name that MLflow does not take."""
    target = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(48):
        with_canaries(target / f"{number}.dcm", number)
        finding = ("pneumonia (viral)", "error")[number % 2]
        rows.append({"image": f"{number}.dcm", "finding": finding, "patient_id": f"CANARY-ID-{number}"})
    pd.DataFrame(rows).to_csv(target / "labels.csv", index=False)
    return target


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(place, run_id, files, environment=None, **options):
    """Run configs as a user does, and return what the console shows."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    names = [str(ROOT / "configs" / name) for name in files]
    command = ["-m", "monai.bundle", "run", run_id, "--config_file", names, *words]
    env = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"} | (environment or {})
    done = processes.run(command, place, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def leaks(place, console):
    secrets = [*PATIENTS, PASSWORD]
    found = [("console", secret) for secret in secrets if secret in console]
    written = [path for path in place.rglob("*") if path.is_file()]
    assert written
    for path in written:
        # a structured report belongs into the record of the patient whom it names
        sought = [PASSWORD] if path.parent.name == "structured_reports" else secrets
        found += [(path.name, secret) for secret in sought if secret.encode() in path.read_bytes()]
    return found


@pytest.fixture(scope="module")
def trained(folder, place):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        dead = f"{PLACE}:{taken.getsockname()[1]}"
        where = {"output_dir": place / "eval", "models_dir": place / "models", "dataset_dir": folder}
        console = run(
            place, "training", ["train.json", "data_folder.json"], **where, **SMALL,
            tracking_uri=dead, dataset_name=NAMED,
        )  # fmt: skip
    return where, console


def test_a_training_goes_on_without_its_server_and_tells_it_once_and_no_secret(trained, place):
    _, console = trained
    assert console.count("WARNING cleft_bundle.best_effort: MLflow") == 1
    assert (place / "models" / "cleft.pt").is_file()
    assert (place / "models" / "model.pt").is_file()
    assert "reader:***@127.0.0.1" in console
    assert leaks(place, console) == []


def test_an_evaluation_with_a_database_and_an_inference_tell_no_secret(trained, place):
    where, _ = trained
    console = run(
        place, "evaluating", ["train.json", "data_folder.json", "evaluate.json"], **where, **SMALL,
        dataset_name=NAMED, resamples=20,
    )  # fmt: skip
    console += run(
        place, "run", ["inference.json"], num_workers=0, dataset_dir=where["dataset_dir"],
        output_dir=place / "scored", model_path=place / "models" / "model.pt",
        structured_reports=True, heat_maps=True,
    )  # fmt: skip
    names = list((place / "eval").rglob("names.json"))
    assert len(names) == 1
    assert "auroc/pneumonia (viral)" in names[0].read_text()
    assert (place / "eval" / "mlruns.db").is_file()
    head = (place / "scored" / "predictions.csv").read_text().splitlines()[0]
    assert head == "image,class:error,pneumonia (viral),prediction,positive,typicality,unusual,error,name"
    assert leaks(place, console) == []
