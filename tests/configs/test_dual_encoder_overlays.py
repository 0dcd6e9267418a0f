"""Dual encoders of others through every config of the bundle, from one training of a family."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from monai.bundle import ConfigWorkflow

from cleft_bundle.checkpoints import load_classifier, load_finetuned
from cleft_bundle.losses import SigmoidLoss
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer
from cleft_bundle.packaging import export_classifier
from cleft_bundle.transforms import backbone_statistics
from tests import processes
from tests.configs import test_breast_overlays, test_data_overlays, test_set_overlays
from tests.configs.conftest import bundle_error
from tests.configs.dual_encoders import BASE, TINY, run, weights
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
FEW = {"resamples": 20, "report_cases": 1, "shift_images": 8, "allow_chosen_patients": True}
SERVED = {"num_workers": 0, "workflow_type": "infer"}

#: Configs that are not run here, and why.
EXCEPTIONS = {
    "metadata": "describes the bundle and is no config to run",
    **dict.fromkeys(
        ("net_bert", "net_small", "net_cleft", "net_cleft_random"), "chooses another network, which is refused"
    ),
    **dict.fromkeys(
        ("recipe_cleft", "recipe_cleft_mammo", "recipe_cleft_prompt"), "has values of CLEFT's own network, as the paper"
    ),
    **dict.fromkeys(
        (f"data_{name}" for name, *_ in test_set_overlays.SETS), "names items alone, of which no network knows the set"
    ),
}


@dataclass
class Case:
    """A trained dual encoder.

    Args:
        family: its model type.
        trained: the folder of its training, which nothing else writes into.
        options: the overrides of the training.
        own: an empty folder for what follows.
        port: that nothing listens on.
    """

    family: str
    trained: Path
    options: dict[str, Any]
    own: Path
    port: int

    def run(self, names: list[str], run_id: str = "training", **override: Any) -> ConfigWorkflow:
        """Run configs; what they write goes into :attr:`own`."""
        outputs = {"output_dir": str(self.own / "eval"), "models_dir": str(self.own / "models")}
        checkpoint = {"checkpoint": str(self.trained / "models/cleft.pt")}
        known = {} if {"evaluate.json", "linear_probe.json", "build_classifier.json"}.isdisjoint(names) else checkpoint
        return run(names, run_id, **self.options | outputs | known | override)


def trained(case: Case) -> None:
    learnt = weights(case.trained / "models/cleft.pt")
    assert any("image_encoder" in name and "lora_" in name for name in learnt)
    assert load_classifier(case.trained / "models/model.pt").class_weights.shape[1] == 16


def evaluated(case: Case) -> None:
    case.run([*BASE, "evaluate.json"], "evaluating", **FEW)
    report = json.loads((case.own / "eval/report.json").read_text())
    assert "auroc" in json.dumps(report["metrics"])


def described(case: Case) -> None:
    case.run([*BASE, "describe.json"], "describing", report_samples=2)
    assert (case.own / "eval/data_report.html").is_file()


def drawn(case: Case) -> None:
    few = {"balanced_test": 2, "report_samples": 0}
    splits = case.run([*BASE, "test_chexpert_5x200.json", "describe.json"], "describing", **few).parser
    labels = [item["label"] for item in splits.get_parsed_content("splits")["test"]]
    assert [sum(label[k] for label in labels) for k in range(5)] == [2] * 5


def prompted(case: Case) -> None:
    start = case.trained / "models/cleft.pt"
    case.run([*BASE, "prompt_tuning.json"], pretrained=str(start), context_length=6)
    learnt = weights(case.own / "models/cleft_prompt.pt")
    classes = load_classifier(case.own / "models/model.pt").class_names
    assert learnt.pop("prompt.context").shape == (len(classes), 6, 16)
    before = weights(start)
    assert learnt.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in learnt.items())


def probed(case: Case) -> None:
    case.run([*BASE, "linear_probe.json"], "probing", fractions=[1.0], strengths=[0.01, 1.0], resamples=20)
    assert json.loads((case.own / "eval/label_efficiency.json").read_text())


def finetuned(case: Case) -> None:
    options = {key: value for key, value in case.options.items() if key not in ("epochs", "val_interval")}
    options |= {"min_epochs": 1, "min_steps": 1, "resamples": 20}
    options |= {"checkpoint": str(case.trained / "models/cleft.pt")}
    case.options = {key: value for key, value in options.items() if key != "warmup_steps"}
    case.run([*BASE, "finetune.json"], "run")
    (path,) = (case.own / "models").rglob("finetuned.pt")
    classifier = load_finetuned(path)
    assert not any("lora_" in name for name in classifier.state_dict())
    assert classifier(torch.randn(2, 3, 28, 28)).shape == (2, len(classifier.class_names))


def built(case: Case) -> None:
    path = case.own / "built.pt"
    case.run([*BASE, "build_classifier.json"], "calibrating", model_path=str(path))
    assert load_classifier(path).calibration is not None


def predictions(case: Case, names: list[str], model: Path) -> dict[str, list[float]]:
    folder = case.own / model.stem
    images = str(Path(case.options["dataset_dir"], "CheXpert-phantom", "valid"))
    given = {"model_path": str(model), "dataset_dir": images, "output_dir": str(folder)}
    run(names, "run", **SERVED, **given)
    content = json.loads((folder / "predictions.json").read_text())
    return {row["image"]: [row[name] for name in content["class_names"]] for row in content["predictions"]}


def inferred(case: Case) -> None:
    """By inference.json, and by inference_onnx.json from the ONNX file alone: the same scores."""
    model = case.trained / "models/model.pt"
    expected = predictions(case, ["inference.json"], model)
    assert len({tuple(scores) for scores in expected.values()}) > 10
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    (exported,) = export_classifier(load_classifier(model), case.own / "alone", ["onnx"])
    found = predictions(case, ["inference.json", "inference_onnx.json"], exported)
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        assert found[name] == pytest.approx(scores, abs=1e-4)


def exported(case: Case) -> None:
    """As a model of its family, which embeds as the network does."""
    checkpoint = str(case.trained / "models/cleft.pt")
    given = {"dual_encoder_path": str(case.own / "hub"), "checkpoint": checkpoint}
    done = case.run([*BASE, "export_dual_encoder.json"], "run", **given)
    network = done.parser.get_parsed_content("network").eval()
    again = DualEncoder(str(case.own / "hub")).eval()
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    tokens = DualEncoderTokenizer(str(case.own / "hub"), again)(["edema", "no finding"])
    with torch.no_grad():
        torch.testing.assert_close(again.encode_image(images), network.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(again.encode_text(**tokens), network.encode_text(**tokens), atol=1e-5, rtol=0)
    assert backbone_statistics(str(case.own / "hub")) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def labelled(*overlays: str) -> Callable[[Case], None]:
    """Train the classifier further on labels, as the MONAI Label application does."""

    def check(case: Case) -> None:
        models = case.trained / "models"
        given = {"served_model": str(models / "model.pt"), "datalist_file": str(case.trained / "eval/datalist.json")}
        if "prompt_tuning.json" in overlays:
            given |= {"pretrained": str(models / "cleft.pt"), "context_length": 6}
        case.run([*BASE, *overlays], **given)
        old, new = load_classifier(models / "model.pt"), load_classifier(case.own / "eval/model.pt")
        assert (new.class_names, new.preprocessing) == (old.class_names, old.preprocessing)
        towers = [network.image_encoder.state_dict() for network in (old, new)]
        same = all(torch.equal(value, towers[1][name]) for name, value in towers[0].items())
        assert same == ("label_image_tower.json" not in overlays)

    return check


def with_sigmoid(case: Case) -> None:
    """CLIP learns a bias then; SigLIP has its own, and refuses another."""
    if case.family != "clip":
        with pytest.raises(RuntimeError) as caught:
            case.run([*BASE, "loss_sigmoid.json"])
        assert "brings its own scale and bias: leave loss_sigmoid.json out" in bundle_error(caught)
        return
    done = case.run([*BASE, "loss_sigmoid.json"])
    assert isinstance(done.parser.get_parsed_content("loss"), SigmoidLoss)
    learnt = weights(case.own / "models/cleft.pt")
    assert learnt["logit_bias"] != -10
    assert abs(float(learnt["logit_bias"]) + 10) < 1
    with pytest.raises(RuntimeError) as caught:
        case.run([*BASE, "loss_sigmoid.json", "export_dual_encoder.json"], "run")
    assert "a CLIPModel has no place for the logit bias that was learnt" in bundle_error(caught)


def by_two(case: Case) -> None:
    """Two processes with half the batch each learn what one learns, where nothing is left to chance."""
    adapters = {"_target_": "peft.LoraConfig", "r": 8, "lora_alpha": 32, "lora_dropout": 0.0}
    same = {"random_transforms": [], "peft": adapters, "image_peft": adapters}
    case.run(BASE, **same)
    values = case.options | same | {"batch_size": 4}
    values |= {"output_dir": str(case.own / "two/eval"), "models_dir": str(case.own / "two/models")}
    options = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    files = str([str(ROOT / "configs" / name) for name in [*BASE, "multi_gpu_train.json"]])
    started = []
    for rank in "01":  # as torchrun starts them
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(case.port)}
        command = ["-m", "monai.bundle", "run", "training", "--config_file", files, *options]
        with patch.dict(os.environ, place):
            started.append(processes.start(command, case.own / f"out{rank}", case.own / f"err{rank}"))
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0], (case.own / "err0").read_text()[-2000:]
    one, two = (weights(folder / "models/cleft.pt") for folder in (case.own, case.own / "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0, msg=name)


def on_breasts(case: Case) -> None:
    breasts = {"phantom_patients": 24, "bundle_root": str(case.own), "task": "multiclass"}
    case.options = {key: value for key, value in case.options.items() if key != "dataset_dir"}
    breasts["prompt_file"] = str(ROOT / "configs/prompts/embed_density.json")
    case.run([*BASE, "data_phantom_breast.json", "transforms_mammography.json"], **breasts)
    classifier = load_classifier(case.own / "models/model.pt")
    assert classifier.task == "multiclass"
    assert "CropBreastd" in json.dumps(classifier.preprocessing)


def on_chests(case: Case) -> None:
    case.run([*BASE, "transforms_chest.json"])
    assert "CropCollimationd" in json.dumps(load_classifier(case.own / "models/model.pt").preprocessing)


def on_a_set(name: str, write: Callable[[Path], Any]) -> Callable[[Case], None]:
    """Train on a miniature of a public set."""

    def check(case: Case) -> None:
        root = case.own / "data"
        root.mkdir()
        write(root)
        given = {"dataset_dir": str(root), "batch_size": 4, **test_data_overlays.VALUES.get(name, {})}
        case.run([*BASE, f"data_{name}.json"], **given)
        assert (case.own / "models/model.pt").is_file()

    return check


def on_a_folder(case: Case) -> None:
    rows = ["image,finding,patient_id"]
    for number in range(24):
        test_data_overlays.picture(case.own / "data" / f"{'x' * number}{number}.png")
        rows.append(f"{'x' * number}{number}.png,{('edema', 'no finding')[number % 2]},{number}")
    (case.own / "data/labels.csv").write_text("\n".join(rows) + "\n")
    case.run([*BASE, "data_folder.json"], dataset_dir=str(case.own / "data"), batch_size=4)
    assert load_classifier(case.own / "models/model.pt").class_names == ["edema", "no finding"]


def on_a_datalist(case: Case) -> None:
    given = {"datalist_file": str(case.trained / "eval/datalist.json")}
    case.run([*BASE, "data_datalist.json"], **given)
    assert (case.own / "models/model.pt").is_file()


SETS = test_data_overlays.WRITERS | test_breast_overlays.WRITERS
#: Configs beside train.json and net_dual_encoder.json, and what is done with them.
RUNS: dict[tuple[str, ...], Callable[[Case], None]] = {
    ("train", "net_dual_encoder"): trained,
    ("evaluate",): evaluated,
    ("describe",): described,
    ("test_chexpert_5x200",): drawn,
    ("prompt_tuning",): prompted,
    ("linear_probe",): probed,
    ("finetune",): finetuned,
    ("build_classifier",): built,
    ("inference", "inference_onnx"): inferred,
    ("export_dual_encoder",): exported,
    ("label_training",): labelled("label_training.json"),
    ("label_prompt",): labelled("prompt_tuning.json", "label_training.json", "label_prompt.json"),
    ("label_image_tower",): labelled("finetune.json", "label_training.json", "label_image_tower.json"),
    ("loss_sigmoid",): with_sigmoid,
    ("multi_gpu_train",): by_two,
    ("data_phantom_breast", "transforms_mammography"): on_breasts,
    ("transforms_chest",): on_chests,
    ("data_folder",): on_a_folder,
    ("data_datalist",): on_a_datalist,
    **{(f"data_{name}",): on_a_set(name, write) for name, write in SETS.items()},
}
#: What SigLIP 2 runs too, whose own part is how it takes images and texts.
MAIN = [
    "train",
    "evaluate",
    "prompt_tuning",
    "linear_probe",
    "finetune",
    "build_classifier",
    "inference",
    "export_dual_encoder",
]


def test_every_config_is_run_or_excused():
    there = {path.stem for path in (ROOT / "configs").glob("*.json")}
    run_here = [name for names in RUNS for name in names]
    assert len(run_here) == len(set(run_here))
    assert set(run_here) | EXCEPTIONS.keys() == there
    assert not EXCEPTIONS.keys() & set(run_here)


@pytest.mark.parametrize(
    ("names", "override", "named"),
    [
        (["net_small.json"], {}, "image_backbone"),
        (["net_bert.json"], {}, "text_backbone"),
        (["net_cleft.json"], {}, "image_backbone"),
        ([], {"embedding_dim": 64}, "embedding_dim"),
        ([], {"max_caption_tokens": 12}, "max_caption_tokens"),
        ([], {"image_std": 0.5}, "image_std"),
    ],
)
def test_what_only_another_network_reads_is_refused(names, override, named, tmp_path):
    given = TINY | {"dual_encoder": str(tmp_path), "models_dir": str(tmp_path), "output_dir": str(tmp_path)}
    with pytest.raises(RuntimeError) as caught:
        run([*BASE, *names], "training", **given | override)
    assert bundle_error(caught).startswith(f"{named}: nothing reads it here")


#: How images of a set are listed, split and captioned knows no family: these alternate between two.
ALTERNATE = [names for names in RUNS if names[0].startswith(("data_", "transforms_", "describe", "test_chexpert"))]
CASES = [(family, names) for family in ("clip", "siglip") for names in RUNS if names not in ALTERNATE]
CASES += [(("clip", "siglip")[number % 2], names) for number, names in enumerate(ALTERNATE)]
CASES += [("siglip2", names) for names in RUNS if names[0] in MAIN]


@pytest.mark.parametrize(("family", "names"), CASES, ids=[f"{family}-{names[0]}" for family, names in CASES])
def test_a_dual_encoder_goes_through(family, names, dual_training, tmp_path, free_port):
    folder, options = dual_training(family)
    RUNS[names](Case(family, folder, dict(options), tmp_path, free_port))
