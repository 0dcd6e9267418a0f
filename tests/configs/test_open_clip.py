"""A checkpoint of open_clip, as BiomedCLIP is one, through the configs that CLEFT is trained with."""

import json
from importlib import import_module

import pytest
import torch
from monai.utils import optional_import

from cleft_bundle.checkpoints import load_classifier, load_finetuned
from cleft_bundle.engines.training_step import TrainingStep
from cleft_bundle.networks.open_clip import towers
from tests.configs import dual_encoders
from tests.configs.dual_encoders import TINY, weights
from tests.configs.test_dual_encoder import logits_of
from tests.networks.open_clip_families import copy_fixture

pytestmark = pytest.mark.slow
OVERLAY = "net_dual_encoder.json"


def run(folder, names, run_id, **override):
    """Run config files of the bundle; outputs go to ``folder``."""
    own = {"output_dir": str(folder / "eval"), "models_dir": str(folder / "models")}
    return dual_encoders.run(names, run_id, **(own | override))


@pytest.fixture(scope="module", autouse=True)
def small_towers():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(towers.TIMM_HEADS, "nano", 2)
        if optional_import("open_clip")[1]:
            import_module("tests.networks.open_clip_writer").register_nano()
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_phantoms, small_towers):
    """The folder of a training of a BiomedCLIP-like model, and the overrides that it was run with."""
    folder = tmp_path_factory.mktemp("biomed")
    copy_fixture("biomed", folder / "biomed")
    options = TINY | {
        "epochs": 2,
        "dual_encoder": str(folder / "biomed"),
        "dataset_dir": few_phantoms,
        "image_peft": "lora",
    }
    run(folder, ["train.json", OVERLAY], "training", **options)
    return folder, options


def test_it_is_trained_evaluated_and_served(trained, tmp_path):
    folder, options = trained
    options = options | {"output_dir": str(tmp_path / "eval"), "resamples": 20, "report_cases": 0, "shift_images": 8}
    state = torch.load(folder / "models/cleft.pt", weights_only=True)
    assert {state[part]["source"] for part in ("image_backbone", "text_backbone")} == {"biomed"}
    adapted = [name for name in state["weights"] if "lora_" in name]
    assert {name.split(".")[0] for name in adapted} == {"image_encoder", "text_encoder"}
    evaluated = run(folder, ["train.json", OVERLAY, "evaluate.json"], "evaluating", **options)
    transform = evaluated.parser.get_parsed_content("dual_encoder_statistics")
    assert transform == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    classifier = load_classifier(folder / "models/model.pt")
    rows = evaluated.parser.get_parsed_content("validate#dataset")
    images = torch.stack([torch.as_tensor(row["image"]) for row in rows])
    with torch.no_grad():
        logits = classifier.raw_logits(classifier.embed(images))
    torch.testing.assert_close(logits.numpy(), logits_of(evaluated), atol=1e-3, rtol=1e-4)
    assert str(folder) not in json.dumps(classifier.settings)
    untouched = run(folder, ["train.json", "evaluate.json", OVERLAY], "evaluating", **options)
    assert abs(logits_of(untouched) - logits_of(evaluated)).max() > 1e-4


def test_a_prompt_is_learnt(trained, tmp_path):
    folder, options = trained
    options = options | {"output_dir": str(tmp_path / "eval"), "models_dir": str(tmp_path / "models")}
    options |= {"pretrained": str(folder / "models/cleft.pt"), "context_length": 6}
    run(folder, ["train.json", OVERLAY, "prompt_tuning.json"], "training", **options)
    assert weights(tmp_path / "models/cleft_prompt.pt")["prompt.context"].shape[1:] == (6, 32)
    assert load_classifier(tmp_path / "models/model.pt").class_weights.shape[1] == 16


def test_probe_and_finetuning_start_from_its_tower(trained, tmp_path):
    folder, options = trained
    options = options | {"output_dir": str(tmp_path / "eval"), "models_dir": str(tmp_path / "models")}
    options |= {"checkpoint": str(folder / "models/cleft.pt"), "resamples": 20}
    grid = {"fractions": [1.0], "strengths": [0.01, 1.0]}
    run(folder, ["train.json", OVERLAY, "linear_probe.json"], "probing", **options | grid)
    options = {key: value for key, value in options.items() if key not in ("epochs", "val_interval", "warmup_steps")}
    run(folder, ["train.json", OVERLAY, "finetune.json"], "run", **options, min_epochs=1, min_steps=1)
    (path,) = (tmp_path / "models").rglob("finetuned.pt")
    classifier = load_finetuned(path)
    assert classifier(torch.randn(2, 3, 28, 28)).shape == (2, len(classifier.class_names))


def test_a_classifier_is_built_and_used(trained, tmp_path):
    folder, options = trained
    options = options | {"output_dir": str(tmp_path / "eval"), "model_path": str(tmp_path / "model.pt")}
    run(folder, ["train.json", OVERLAY, "build_classifier.json"], "calibrating", **options)
    used = {"model_path": options["model_path"], "dataset_dir": options["dataset_dir"], "num_workers": 0}
    run(tmp_path, ["inference.json"], "run", **used, output_dir=str(tmp_path / "out"))
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) > 10


def test_an_interrupted_training_goes_on(trained, monkeypatch):
    folder, options = trained
    options = options | {"checkpoint_interval": 2}
    step, calls = TrainingStep.__call__, iter(range(9))
    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", lambda *args: next(calls) + 1 and step(*args))
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever ignite and MONAI make of it
            run(folder / "stopped", ["train.json", OVERLAY], "training", **options)
    run(folder / "stopped", ["train.json", OVERLAY], "training", **options, resume=True)
    whole = weights(folder / "models/cleft.pt")
    for name, value in weights(folder / "stopped/models/cleft.pt").items():
        torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=0)
