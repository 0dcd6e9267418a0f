"""A run that is killed and resumed ends as one that was not."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import time

import mlflow
import pytest
import torch

from tests import processes
from tests.configs.conftest import TINY
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SIZE = {**TINY, "epochs": 3, "val_interval": 1, "checkpoint_interval": 3, "unfreeze_text": "[]"}


def command(folder, data, *more, **override):
    values = SIZE | {"dataset_dir": data, "output_dir": folder / "eval", "models_dir": folder / "models"} | override
    options = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    config = str(ROOT / "configs/train.json")
    return ["-m", "monai.bundle", "run", "training", "--config_file", config, *options, *more]


def weights(folder):
    return torch.load(folder / "models" / "cleft.pt", weights_only=True)["weights"]


def metrics(folder):
    client = mlflow.MlflowClient(f"sqlite:///{folder}/eval/mlruns.db")
    runs = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert len(runs) == 1, "a resumed run goes on under its own name"
    assert runs[0].info.status == "FINISHED"
    return {key: value for key, value in runs[0].data.metrics.items() if "auroc" in key or key == "train_loss"}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, chest_phantoms):
    """The folder of a run that was never killed, by the method that adapts the language model; each runs once."""

    @functools.cache
    def run(peft):
        folder = tmp_path_factory.mktemp("whole")
        done = processes.run(command(folder, chest_phantoms, peft=peft), check=True)
        (folder / "said.txt").write_text(done.stdout + done.stderr)
        return folder

    return run


@pytest.mark.parametrize(
    ("steps_before_kill", "peft"),
    [(4, "lora"), (12, "adalora")],  # within the first epoch of 6 steps, and at the end of the second
)
def test_killed_and_resumed(steps_before_kill, peft, tmp_path, chest_phantoms, whole_run):
    whole, broken = whole_run(peft), tmp_path
    checkpoint = broken / "models" / "checkpoints" / "training.pt"
    process = processes.start(command(broken, chest_phantoms, peft=peft), tmp_path / "out", tmp_path / "err")
    wanted = steps_before_kill // 3 * 3
    while process.is_alive():
        if checkpoint.is_file() and torch.load(checkpoint, weights_only=True)["iteration"] >= wanted:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it could be killed"
    resume = command(broken, chest_phantoms, "--resume", "true", peft=peft)
    done = processes.run(resume)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on after step" in done.stdout + done.stderr
    first, second = weights(whole), weights(broken)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(whole) == metrics(broken)


def test_sigterm_writes_a_state_from_which_the_run_goes_on(tmp_path, chest_phantoms, whole_run):
    options = {"peft": "lora", "checkpoint_interval": 1000}  # no state by itself before the end
    process = processes.start(command(tmp_path, chest_phantoms, **options), tmp_path / "out", tmp_path / "err")
    while process.is_alive() and not (tmp_path / "models" / "checkpoints" / "best.pt").is_file():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    said = (tmp_path / "err").read_text().strip().splitlines()[-1]
    assert process.exitcode == 1
    assert re.match(r"error: SIGTERM: run train_\S+ ends after step \d+, whose state is written", said)
    done = processes.run(command(tmp_path, chest_phantoms, "--resume", "true", **options))
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = weights(whole_run("lora")), weights(tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(whole_run("lora")) == metrics(tmp_path)


def test_the_command_that_training_names_evaluates_what_it_trained(whole_run):
    said = (whole_run("lora") / "said.txt").read_text()
    again = said.split("evaluate again:  python ")[1].splitlines()[0]
    done = processes.run(shlex.split(again), cwd=ROOT, check=True, timeout=300)
    metrics = [line for line in said.splitlines() if re.match("  (zero shot )?auroc", line)]
    assert len(metrics) > 2
    assert set(metrics) <= set((done.stdout + done.stderr).splitlines())


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path, chest_phantoms, whole_run):
    shutil.copytree(whole_run("lora"), tmp_path, dirs_exist_ok=True)
    kept = (tmp_path / "models" / "cleft.pt").read_bytes()
    done = processes.run(
        command(tmp_path, chest_phantoms, "--resume", "true", peft="lora", learning_rate=0.5, positives="index")
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: resume: the config differs")
    assert "learning_rate" in last
    assert 'positives: "caption" then, "index" now' in last
    assert (tmp_path / "models" / "cleft.pt").read_bytes() == kept


def test_nothing_to_resume_is_one_line(tmp_path, chest_phantoms):
    done = processes.run(command(tmp_path, chest_phantoms, "--resume", "true"))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: checkpoint ")
    assert last.endswith("there is nothing to resume; start without --resume")
    assert json.loads((ROOT / "configs/train.json").read_text())["resume"] is False
