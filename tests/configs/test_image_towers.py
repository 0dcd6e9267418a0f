"""Image towers of other families, and adapters in one, through the real configs."""

import json
import re

import numpy as np
import pytest
import torch

from cleft_bundle.checkpoints import load_deployed, open_classifier
from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import export_classifier
from tests.configs.conftest import TINY, bundle_error
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_from_training_to_exports(name, run_config, chest_phantoms, tmp_path):
    given = values(name, chest_phantoms)
    run_config(["train.json"], "training", **given)
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
    for path in (built, next((tmp_path / "models" / "finetune").rglob("finetuned.pt"))):
        classifier = load_deployed(path)
        assert not any(".lora_" in key or "base_layer" in key for key in classifier.state_dict())
        for written in export_classifier(classifier, tmp_path / "exported", ("torchscript", "onnx")):
            scores = open_classifier(written)(image)
            assert not scores.requires_grad
            np.testing.assert_allclose(scores.numpy(), classifier(image).detach().numpy(), atol=1e-5)
    predicted = {"dataset_dir": chest_phantoms, "model_path": built, "output_dir": str(tmp_path / "scored")}
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
def test_what_does_not_fit_is_refused_before_anything_is_trained(override, says, run_config, chest_phantoms, tmp_path):
    given = {key: value for key, value in VIT.items() if "#" not in key} | {"dataset_dir": chest_phantoms} | override
    with pytest.raises((BundleError, RuntimeError)) as caught:  # MONAI wraps what is raised
        run_config(["train.json"], "training", **given)
    assert re.search(says, bundle_error(caught))
    assert not (tmp_path / "models" / "cleft.pt").exists()
