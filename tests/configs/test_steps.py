"""Trainings of the real configs that are counted in steps, which are updates of the weights."""

import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import create_workflow

from cleft_bundle.handlers import checkpoints
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

SIZE = {key: value for key, value in TINY.items() if key != "epochs"} | {"warmup_steps": 1, "tracking_uri": ""}
# an epoch has 6 batches, in groups of 2, 2, 2; the seventh update ends with batch 14, in the third epoch
PLAN = {"max_steps": 7, "val_every_steps": 2, "accumulation_steps": 2, "checkpoint_interval": 2}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"max_steps": 4, "epochs": 2}, "epochs: the training ends after max_steps, 4; give one of the two"),
        (
            {"max_steps": 4, "train#trainer#max_epochs": 2},
            "train#trainer#max_epochs: the training ends after max_steps",
        ),
        ({"max_steps": 30}, "warmup_steps: expected fewer than max_steps, 30, got 30"),
        ({"max_steps": 0}, "max_steps: expected a whole number, 1 or more, or null, got 0"),
        ({"val_every_steps": 0}, "val_every_steps: expected a whole number, 1 or more, or null, got 0"),
        ({"sampling": "fair"}, "sampling: expected natural or balanced, got 'fair'"),
    ],
)
def test_what_does_not_go_together_is_one_line(override, message, tmp_path):
    config = str(ROOT / "configs/train.json")
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=config, workflow_type="train", output_dir=str(tmp_path), **override)
    assert bundle_error(caught).startswith(message)


@pytest.mark.slow
def test_a_training_of_steps_ends_amid_an_epoch_and_goes_on_from_any_of_its_states(
    run_config, chest_phantoms, tmp_path, monkeypatch
):
    kept, save = tmp_path / "states", checkpoints.save

    def copied(content, path):
        save(content, path)
        if "iteration" in content:
            shutil.copytree(Path(path).parent, kept / str(content["iteration"]))

    monkeypatch.setattr(checkpoints, "save", copied)
    values = SIZE | PLAN | {"dataset_dir": chest_phantoms, "peft": "adalora"}
    whole = run_config(["train.json"], "training", **values)
    monkeypatch.setattr(checkpoints, "save", save)
    trainer, validator = whole.trainer, whole.evaluator
    assert trainer.state.epoch_length == 6
    assert trainer.state.iteration == 14
    assert whole.parser.get_parsed_content("lr_scheduler").last_epoch == 7
    curve = whole.parser.get_parsed_content("train#record").loss_curve
    assert [batch for batch, _ in curve.validations[:4]] == [4, 8, 12, 14]
    assert validator.state.best_metric_epoch in (2, 4, 6, 7)
    assert sorted(map(int, (folder.name for folder in kept.iterdir()))) == [2, 4, 6, 8, 10, 12, 14]
    expected = torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["weights"]
    for state in ("2", "8", "12"):  # before the first validation, at one amid an epoch, at the end of an epoch
        again = tmp_path / f"from_{state}"
        shutil.copytree(kept / state, again / "models" / "checkpoints")
        folders = {"output_dir": str(again / "eval"), "models_dir": str(again / "models")}
        resumed = run_config(["train.json"], "training", **values, **folders, resume=True)
        found = torch.load(again / "models" / "cleft.pt", weights_only=True)["weights"]
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        other = resumed.parser.get_parsed_content("train#record").loss_curve
        assert (other.losses, other.validations[:4]) == (curve.losses, curve.validations[:4])


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["train.json", "finetune.json"], ["train.json", "prompt_tuning.json"]], ids=lambda names: names[-1]
)
def test_what_follows_a_training_is_counted_in_steps_too(names, run_config, chest_phantoms):
    values = SIZE | {"dataset_dir": chest_phantoms, "max_steps": 4, "val_every_steps": 3, "sampling": "balanced"}
    run_config(["train.json"], "training", **values)
    more = {"resamples": 20} if "finetune.json" in names else {}
    workflow = run_config(names, "training", **values, **more)
    assert workflow.trainer.state.iteration == 4
    curve = workflow.parser.get_parsed_content("train#record").loss_curve
    assert [batch for batch, _ in curve.validations[:2]] == [3, 4]
