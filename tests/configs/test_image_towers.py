"""Image towers of other families, and adapters in one, through the real configs."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.checkpoints import load_classifier, load_deployed, open_classifier
from cleft_bundle.errors import BundleError
from cleft_bundle.networks.heat_maps import heat_map
from cleft_bundle.packaging import export_classifier
from cleft_bundle.transforms import build_transforms
from tests.configs.conftest import TINY, bundle_error, runner
from tests.configs.dual_encoders import run, stopped
from tests.networks.image_families import config

VIT = {**TINY, "batch_size": 8, "tracking_uri": ""}
TOWERS = {
    "convnext": {"image_backbone": config("convnext"), "pooling": "pooled", "image_size": 64},
    "vit": {"image_backbone": config("vit"), "pooling": "cls", "image_size": 64},
    "lora": {"image_peft": "lora"},
}


def values(name, data):
    tiny = {key: value for key, value in VIT.items() if not (name != "lora" and key.startswith("image_"))}
    return {**tiny, **TOWERS[name], "dataset_dir": data}


@pytest.fixture(scope="module")
def trained(few_phantoms, tmp_path_factory):
    """Train a tower, once: the folder, which each test copies."""

    @functools.cache
    def train(name):
        folder = tmp_path_factory.mktemp(name)
        runner(folder)(["train.json"], "training", **values(name, few_phantoms))
        return folder

    return train


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_from_training_to_exports(name, trained, run_config, few_phantoms, tmp_path):
    given = values(name, few_phantoms)
    shutil.copytree(trained(name), tmp_path, dirs_exist_ok=True)
    weights = torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["weights"]
    backbone = [key for key in weights if key.startswith("image_encoder.backbone.")]
    assert all((".lora_" in key) == (name == "lora") for key in backbone)
    assert backbone
    evaluated = {"output_dir": str(tmp_path / "evaluated"), "resamples": 20, "report_cases": 1}
    run_config(["train.json", "evaluate.json"], "evaluating", **given, **evaluated, allow_chosen_patients=True)
    assert (tmp_path / "evaluated" / "report.html").is_file()
    built = str(tmp_path / "built.pt")
    run_config(["train.json", "build_classifier.json"], "building", **given, model_path=built)
    run_config(["train.json", "finetune.json"], "training", **given, resamples=20, min_epochs=1, min_steps=1)
    image = torch.rand(2, 3, given["image_size"], given["image_size"])
    finetuned = next((tmp_path / "models" / "finetune").rglob("finetuned.pt"))
    # ONNX is slow to write, and knows a tower by either head; both heads are those of packaging/test_export.py
    for path, forms in ((built, ("torchscript",)), (finetuned, ("torchscript", "onnx"))):
        classifier = load_deployed(path)
        assert not any(".lora_" in key or "base_layer" in key for key in classifier.state_dict())
        for written in export_classifier(classifier, tmp_path / "exported", forms):
            scores = open_classifier(written)(image)
            assert not scores.requires_grad
            np.testing.assert_allclose(scores.numpy(), classifier(image).detach().numpy(), atol=1e-5)
    predicted = {"dataset_dir": few_phantoms, "model_path": built, "output_dir": str(tmp_path / "scored")}
    run_config(["inference.json"], "run", **predicted, num_workers=0)
    found = json.loads((tmp_path / "scored" / "predictions.json").read_text())
    assert found


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"image_size": 100}, "image_size: 100 px is not a multiple.*expected 98 or 112"),
        ({"image_peft": "lorra"}, "image_peft: expected one of"),
        ({"image_peft": 4}, "image_peft: expected a text"),
        (
            {"image_backbone": config("convnext"), "image_size": 64},
            "has no tokens_prenorm, it offers mean_patches, poo",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(override, says, run_config, few_phantoms, tmp_path):
    given = {key: value for key, value in VIT.items() if "#" not in key} | {"dataset_dir": few_phantoms} | override
    with pytest.raises((BundleError, RuntimeError)) as caught:  # MONAI wraps what is raised
        run_config(["train.json"], "training", **given)
    assert re.search(says, bundle_error(caught))
    assert not (tmp_path / "models" / "cleft.pt").exists()


@pytest.mark.slow
def test_what_follows_a_training_with_adapters_in_the_image_tower(trained, run_config, few_phantoms, tmp_path):
    given = values("lora", few_phantoms)
    shutil.copytree(trained("lora"), tmp_path, dirs_exist_ok=True)
    before = torch.load(tmp_path / "models/cleft.pt", weights_only=True)["weights"]
    tuned = run_config(["train.json", "prompt_tuning.json"], "training", **given, context_length=6)
    learnt = torch.load(tmp_path / "models/cleft_prompt.pt", weights_only=True)["weights"]
    context = learnt.pop("prompt.context")
    assert len(context) == len(tuned.parser.get_parsed_content("class_names"))
    assert learnt.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in learnt.items())
    grid = {"fractions": [1.0], "strengths": [0.01, 1.0], "resamples": 20, "output_dir": str(tmp_path / "probed")}
    run_config(["train.json", "linear_probe.json"], "probing", **given, **grid)
    points = json.loads((tmp_path / "probed/label_efficiency.json").read_text())
    assert points
    path = tmp_path / "models/model.pt"  # with the learnt prompts
    classifier = load_classifier(path)
    image = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    for method in ("attention", "occlusion", "similarity"):
        maps = heat_map(classifier, image, classifier.class_weights, method)
        assert maps.shape == (1, len(classifier.class_names), 4, 4)
        assert bool(maps.any())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50), np.uint8)).save(tmp_path / "image.png")
    prepared = build_transforms(classifier.preprocessing["transforms"])({"image": str(tmp_path / "image.png")})
    served = ServedModel(path, "cpu").score([tmp_path / "image.png"])
    expected = classifier(prepared["image"][None]).detach().numpy()
    np.testing.assert_allclose(served.probabilities, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_a_training_of_adapters_in_the_image_tower_goes_on(method, few_phantoms, tmp_path, monkeypatch):
    given = values("lora", few_phantoms) | {"image_peft": method, "epochs": 2, "checkpoint_interval": 2}
    found = []
    for name in ("whole", "broken"):
        own = {"output_dir": str(tmp_path / name / "eval"), "models_dir": str(tmp_path / name / "models")}
        if name == "broken":
            stopped(monkeypatch, 5, ["train.json"], **given, **own)
            own["resume"] = True
        run(["train.json"], "training", **given, **own)
        found.append(torch.load(tmp_path / name / "models/cleft.pt", weights_only=True)["weights"])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
