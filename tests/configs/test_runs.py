"""A run publishes, resumes and reports only its own."""

import json
import os
import shutil
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cleft_bundle.checkpoints import load_classifier, run_of_file
from tests import processes
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
QUIET = TINY | {"tracking_uri": ""}


def weights(tmp_path):
    return torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["weights"]


def refused(run_config, names, **override):
    with pytest.raises(RuntimeError) as caught:
        run_config(names, "training", **override)
    return bundle_error(caught)


def test_one_identity_stands_in_every_file_of_a_run(run_config, chest_phantoms, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run_config(["train.json"], "training", dataset_dir=chest_phantoms, **TINY)
    run = run_of_file(tmp_path / "models" / "cleft.pt")
    assert f"  run                    {run['name']} ({run['id']})" in caplog.text
    assert run_of_file(tmp_path / "models" / "checkpoints" / "best.pt") == run
    assert run_of_file(tmp_path / "models" / "checkpoints" / "training.pt") == run
    assert load_classifier(tmp_path / "models" / "model.pt").provenance["run"] == run
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/eval/mlruns.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert (tracked.info.run_name, tracked.data.tags["cleft_run"]) == (run["name"], run["id"])
    run_config(["train.json", "evaluate.json"], "evaluating", dataset_dir=chest_phantoms, **QUIET)
    provenance = json.loads((tmp_path / "eval" / "report.json").read_text())["provenance"]
    assert provenance["checkpoint"]["run"] == run
    assert provenance["run"]["id"] != run["id"]
    assert run["id"] in (tmp_path / "eval" / "report.html").read_text()
    assert not list(tmp_path.glob("*/.run.json")), "the folders are free again"


def test_a_run_that_ends_before_its_interval_publishes_its_own_last_epoch(run_config, chest_phantoms, tmp_path):
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, **QUIET)
    earlier, before = run_of_file(tmp_path / "models" / "cleft.pt"), weights(tmp_path)
    short = {"epochs": 14, "val_interval": 7, "train#trainer#max_epochs": 2, "seed": 1}
    second = run_config(["train.json"], "training", dataset_dir=chest_phantoms, **QUIET | short)
    assert run_of_file(tmp_path / "models" / "cleft.pt")["id"] != earlier["id"]
    assert any(not torch.equal(before[name], value) for name, value in weights(tmp_path).items())
    assert second.evaluator.state.best_metric_epoch == 2


def test_a_run_without_a_step_is_an_error_and_what_was_published_stays(run_config, chest_phantoms, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cleft.pt").write_bytes(b"an earlier run's")
    message = refused(run_config, ["train.json"], dataset_dir=chest_phantoms, **QUIET | {"batch_size": 512})
    assert message.startswith("batch_size: 512 images a batch and process are more than the 106 training images")
    assert (tmp_path / "models" / "cleft.pt").read_bytes() == b"an earlier run's"


def test_validation_images_of_one_class_are_refused_before_the_first_step(run_config, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["image,finding,patient_id,split"]
    for number in range(12):
        grey = np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
        split = "train" if number < 8 else "validation"
        finding = "edema" if number % 2 or split == "validation" else "no finding"
        rows.append(f"{number}.png,{finding},p{number},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    files = ["train.json", "data_folder.json"]
    message = refused(run_config, files, dataset_dir=str(folder), **QUIET | {"batch_size": 4})
    assert "no class has both positive and negative validation images" in message
    assert "edema 4 and 0" in message
    assert not (tmp_path / "models").exists()


def test_a_finished_run_resumed_publishes_again_what_it_has(run_config, chest_phantoms, tmp_path, caplog):
    size = TINY | {"dataset_dir": chest_phantoms, "epochs": 2}
    run_config(["train.json"], "training", **size)
    before, run = weights(tmp_path), run_of_file(tmp_path / "models" / "cleft.pt")
    state = torch.load(tmp_path / "models" / "checkpoints" / "training.pt", weights_only=True)
    assert state["complete"] is True
    (tmp_path / "models" / "cleft.pt").unlink()
    (tmp_path / "models" / "model.pt").unlink()
    for resume in (True, "auto"):
        with caplog.at_level("INFO"):
            run_config(["train.json"], "training", resume=resume, **size)
        assert f"run {run['name']} is finished" in caplog.text
        assert all(torch.equal(before[name], value) for name, value in weights(tmp_path).items())
        assert run_of_file(tmp_path / "models" / "cleft.pt") == run
        assert load_classifier(tmp_path / "models" / "model.pt").provenance["run"] == run
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/eval/mlruns.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert tracked.info.status == "FINISHED"
    # the best weights of another run in the place of its own
    best = tmp_path / "models" / "checkpoints" / "best.pt"
    content = torch.load(best, weights_only=True)
    torch.save(content | {"run": {"id": "f" * 32, "name": "other"}}, best)
    message = refused(run_config, ["train.json"], resume=True, **size)
    assert "best.pt was written by run other, not by this one" in message


def test_a_run_is_not_resumed_on_other_data(run_config, chest_phantoms, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(chest_phantoms, data)
    run_config(["train.json"], "training", dataset_dir=str(data), **QUIET)
    before = (tmp_path / "models" / "cleft.pt").read_bytes()
    table = next(data.rglob("train.csv"))
    rows = pd.read_csv(table)
    rows.iloc[: len(rows) // 2].to_csv(table, index=False)
    message = refused(run_config, ["train.json"], dataset_dir=str(data), **QUIET | {"resume": True})
    assert "resume: the fingerprint of the data (images, splits, captions, labels) is another one" in message
    assert (tmp_path / "models" / "cleft.pt").read_bytes() == before


def test_a_second_run_in_the_same_folders_stops_and_names_the_first(run_config, chest_phantoms, tmp_path):
    values = QUIET | {"dataset_dir": chest_phantoms, "epochs": 500, "run_name": "the_first"}
    folders = {"output_dir": tmp_path / "eval", "models_dir": tmp_path / "models"}
    options = [part for key, value in (values | folders).items() for part in (f"--{key}", str(value) or "''")]
    command = ["-m", "monai.bundle", "run", "training", "--config_file", f"{ROOT}/configs/train.json"]
    first = processes.start([*command, *options], Path(os.devnull), Path(os.devnull))
    try:
        while not (tmp_path / "models" / "checkpoints" / "best.pt").is_file():
            assert first.is_alive(), "the first run ended"
            time.sleep(0.05)
        second = QUIET | {"dataset_dir": chest_phantoms}
        message = refused(run_config, ["train.json"], **second)
        assert f"models is in use by run the_first (process {first.pid} on " in message
        elsewhere = second | {"models_dir": str(tmp_path / "other")}  # the pictures would still be mixed up
        assert "eval is in use by run the_first" in refused(run_config, ["train.json"], **elsewhere)
    finally:
        first.kill()
        first.join()
    run_config(["train.json"], "training", **second)
    assert run_of_file(tmp_path / "models" / "cleft.pt")["name"] != "the_first"
