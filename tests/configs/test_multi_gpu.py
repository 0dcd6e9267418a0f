"""The same training by one process and by two."""

import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
import torch

from tests import processes
from tests.configs.conftest import TINY
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def command(folder, data, names, run_id="training", **override):
    values = TINY | {"dataset_dir": data, "output_dir": folder / "eval", "models_dir": folder / "models"} | override
    options = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    files = str([str(ROOT / "configs" / name) for name in names])
    return ["-m", "monai.bundle", "run", run_id, "--config_file", files, *options]


def torchrun(words, port):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *words], check=False, capture_output=True, text=True, env=environment)


def start_two(words, port, folder):
    """What torchrun starts, from the server of processes."""
    log, together = folder / "log.txt", {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places = [os.environ | together | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return [processes.start(words, log, log, env=place) for place in places]


def as_torchrun(words, port, folder):
    """Run them to their end."""
    started = start_two(words, port, folder)
    for process in started:
        process.join(600)
    return [process.exitcode for process in started], (folder / "log.txt").read_text()


def assert_equal(first, second):
    """Softmax does not depend on a bias of the keys: its gradient is rounding alone, which Adam makes large."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(value, second[name], atol=1e-4, rtol=0, msg=name)


def trained(folder):
    return torch.load(folder / "models" / "cleft.pt", weights_only=True)["weights"]


def test_two_processes_train_and_evaluate_as_one(tmp_path, chest_phantoms, free_port):
    """Half the batch each; without dropout and augmentation both runs compute the same numbers."""
    same = {"random_transforms": "[]", "peft#lora_dropout": 0.0, "epochs": 2}
    one = processes.run(command(tmp_path / "one", chest_phantoms, ["train.json"], **same, batch_size=16))
    assert one.returncode == 0, one.stderr[-2000:]
    names = ["train.json", "multi_gpu_train.json"]
    two = torchrun(command(tmp_path / "two", chest_phantoms, names, **same, batch_size=8), free_port)
    assert two.returncode == 0, two.stderr[-2000:]
    words = command(tmp_path / "divided", chest_phantoms, names, **same, batch_size=8, strategy="fsdp")
    codes, said = as_torchrun(words, free_port, tmp_path)
    assert codes == [0, 0], said[-2000:]
    runs, folders = [], ("one", "two", "divided")
    for name in folders:
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/{name}/eval/mlruns.db")
        (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
        assert run.info.status == "FINISHED"
        runs.append({key: value for key, value in run.data.metrics.items() if key != "lr"})
    assert runs[0].keys() == runs[1].keys()
    for other in (1, 2):
        assert runs[0] == pytest.approx(runs[other], abs=1e-4)
        assert_equal(trained(tmp_path / "one"), trained(tmp_path / folders[other]))
    assert two.stdout.count("training is done") + two.stderr.count("training is done") == 1

    # 53 images, which neither the batch size nor the number of processes divides
    odd = {"evaluate_split": "train", "allow_trained_patients": "true", "train_fraction": 0.5, **same}
    odd |= {"shift_images": 24, "report_cases": 0}  # nothing here looks at them
    names = ["train.json", "evaluate.json", "multi_gpu_train.json"]
    alone = processes.run(command(tmp_path / "one", chest_phantoms, names[:2], "evaluating", **odd, batch_size=16))
    assert alone.returncode == 0, alone.stderr[-1000:]
    report = tmp_path / "one" / "eval" / "report.json"
    estimates = [json.loads(report.read_text())]
    shared = command(tmp_path / "one", chest_phantoms, names, "evaluating", **odd, batch_size=8)
    codes, said = as_torchrun(shared, free_port, tmp_path)
    assert codes == [0, 0], said[-2000:]
    estimates.append(json.loads(report.read_text()))
    for name, metric in estimates[0]["metrics"].items():
        other = estimates[1]["metrics"][name]
        assert other.pop("classes", None) == metric.pop("classes", None), name
        assert other == pytest.approx(metric, abs=1e-6), name
    assert [part["provenance"]["processes"] for part in estimates] == [1, 2]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/one/eval/mlruns.db")
    experiment = client.get_experiment_by_name("cleft_bundle").experiment_id
    evaluated = [run.data.metrics for run in client.search_runs([experiment]) if "evaluate" in run.info.run_name]
    assert len(evaluated) == 2
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-6)


def test_two_processes_learn_the_prompt_that_one_learns(tmp_path, few_phantoms, free_port):
    start = processes.run(command(tmp_path, few_phantoms, ["train.json"]))
    assert start.returncode == 0, start.stderr[-2000:]
    same = {"pretrained": tmp_path / "models" / "cleft.pt", "context_length": 4, "peft#lora_dropout": 0.0}
    names, learnt = ["train.json", "prompt_tuning.json"], []
    alone = processes.run(command(tmp_path / "one", few_phantoms, names, **same, batch_size=16))
    assert alone.returncode == 0, alone.stderr[-2000:]
    for strategy in ("ddp", "fsdp"):
        own = {"batch_size": 8, "strategy": strategy}
        words = command(tmp_path / strategy, few_phantoms, [*names, "multi_gpu_train.json"], **same | own)
        codes, said = as_torchrun(words, free_port, tmp_path)
        assert codes == [0, 0], said[-2000:]
    for folder in ("one", "ddp", "fsdp"):
        state = torch.load(tmp_path / folder / "models" / "cleft_prompt.pt", weights_only=True)
        learnt.append(state["weights"]["prompt.context"])
    for other in learnt[1:]:
        torch.testing.assert_close(learnt[0], other, atol=1e-4, rtol=0)


def test_a_run_of_two_processes_goes_on_in_one(tmp_path, chest_phantoms, free_port):
    """Killed by SIGKILL; what a step sees of images stays the same."""
    same = {"random_transforms": "[]", "peft#lora_dropout": 0.0, "epochs": 4, "checkpoint_interval": 3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = processes.run(command(whole, chest_phantoms, ["train.json"], **same, batch_size=16))
    assert done.returncode == 0, done.stderr[-2000:]
    names = ["train.json", "multi_gpu_train.json"]
    started = start_two(
        command(broken, chest_phantoms, names, **same, batch_size=8, strategy="fsdp"), free_port, tmp_path
    )
    while all(process.is_alive() for process in started) and not (broken / "models/checkpoints/training.pt").is_file():
        time.sleep(0.01)
    for process in started:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert [process.exitcode for process in started] == [-signal.SIGKILL] * 2, "it ended before it could be killed"
    again = command(broken, chest_phantoms, ["train.json"], **same, resume="true")
    wrong = processes.run([*again, "--batch_size", "8"])
    assert "the number of images of a step (batch_size x processes) is another one" in wrong.stderr
    done = processes.run([*again, "--batch_size", "16"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert_equal(trained(whole), trained(broken))


def test_without_torchrun_it_says_so(tmp_path, chest_phantoms):
    done = processes.run(command(tmp_path, chest_phantoms, ["train.json", "multi_gpu_train.json"]))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: multi_gpu_train.json goes with torchrun")
