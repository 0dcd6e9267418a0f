"""A folder for transformers is loaded by transformers alone, and gives the scores of the classifier."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.packaging import describe, export_classifier
from cleft_bundle.packaging.hub import tower_of
from cleft_bundle.transforms import build_transforms
from tests.packaging.hub_towers import NAMES, NORMALIZE, TOWERS, TRANSFORMS, finetuned, pixels, zero_shot

CLASSIFIERS = {name: zero_shot(*kind) for name, kind in TOWERS.items()} | {"finetuned": finetuned(*TOWERS["registers"])}
#: Runs the README's code of every folder where this bundle cannot be imported, and keeps what it gives.
STRANGER = r"""
import re, sys
from pathlib import Path
sys.modules["cleft_bundle"] = None
from PIL import Image
from safetensors.torch import load_file, save_file
pixels = load_file("pixels.safetensors")["pixels"]
for folder in sorted(Path(".").glob("*_transformers")):
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(code.replace('Path(".")', repr(folder).replace("PosixPath", "Path")), names)
    image = names["processor"](Image.open("image.png"), return_tensors="pt")["pixel_values"]
    found = {"scores": names["probabilities"](pixels), "image": image, "tower": names["features"](pixels).detach()}
    found = {name: value.contiguous() for name, value in found.items()}
    save_file(found, f"{folder.name}.safetensors")
    assert type(names["model"]).__module__.startswith("transformers."), type(names["model"])
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By classifier, what another program computes from its folder."""
    folder = tmp_path_factory.mktemp("hub")
    for name, classifier in CLASSIFIERS.items():
        export_classifier(classifier, folder / name, ["transformers"])
    save_file({"pixels": pixels()}, folder / "pixels.safetensors")
    levels = np.random.default_rng(0).integers(0, 256, (56, 56), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "image.png")
    subprocess.run([sys.executable, "-c", STRANGER], cwd=folder, check=True)
    return {name: load_file(folder / f"{name}_transformers.safetensors") for name in CLASSIFIERS} | {"folder": folder}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_and_features_are_those_of_the_classifier(name, found):
    with torch.no_grad():
        expected = {"scores": CLASSIFIERS[name](pixels()), "tower": CLASSIFIERS[name].image_encoder.features(pixels())}
    assert expected["scores"].std(dim=0).min() > 1e-3  # else constant scores would pass
    for key, value in expected.items():
        torch.testing.assert_close(found[name][key], value, atol=1e-6, rtol=1e-6)


def test_the_processor_prepares_a_square_picture_as_the_training_did(found):
    ours = build_transforms(TRANSFORMS)({"image": str(found["folder"] / "image.png")})["image"]
    torch.testing.assert_close(found["registers"]["image"][0], ours, atol=1e-6, rtol=0)


def test_the_folder_says_what_its_numbers_mean(found):
    stored = json.loads((found["folder"] / "registers_transformers" / "cleft.json").read_text())
    expected = json.loads(json.dumps(describe(CLASSIFIERS["registers"])))
    assert stored == {**expected, "pooling": "tokens_prenorm"}
    config = json.loads((found["folder"] / "registers_transformers" / "config.json").read_text())
    assert config["architectures"] == ["Dinov2WithRegistersModel"]


def test_statistics_of_a_backbone_are_stated(tmp_path):
    """NormalizeForBackbone names the backbone in place of numbers."""
    named = {
        "_target_": "cleft_bundle.transforms.NormalizeForBackboned",
        "keys": "image",
        "backbone": {"model_type": "vit"},
    }
    (folder,) = export_classifier(zero_shot(*TOWERS["vit"], transforms=[named]), tmp_path / "m", ["transformers"])
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert (processor["image_mean"], processor["image_std"]) == ([0.5] * 3, [0.5] * 3)
    assert processor["size"] == {"height": 56, "width": 56}


@pytest.mark.parametrize(
    ("transforms", "says"),
    [
        ([], "0 of its transforms normalise"),
        ([NORMALIZE, NORMALIZE], "2 of its transforms normalise"),
        ([{"_target_": "NormalizeIntensityd", "keys": "image"}], "by their own statistics"),
    ],
)
def test_what_no_processor_can_state_is_refused(transforms, says, tmp_path):
    with pytest.raises(BundleError, match=says):
        export_classifier(zero_shot(*TOWERS["vit"], transforms=transforms), tmp_path / "m", ["transformers"])
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_replaced_and_another_folder_is_not(tmp_path):
    classifier = CLASSIFIERS["registers"]
    (folder,) = export_classifier(classifier, tmp_path / "m", ["transformers"])
    (folder / "old").touch()
    export_classifier(classifier, tmp_path / "m", ["transformers"])
    assert not (folder / "old").exists()
    (folder / "cleft.json").unlink()
    with pytest.raises(BundleError, match=r"m_transformers is a folder without cleft.json"):
        export_classifier(classifier, tmp_path / "m", ["transformers"])
    assert (folder / "config.json").is_file()


def test_a_classifier_without_a_tower_is_refused():
    with pytest.raises(BundleError, match=r"DeployedClassifier has no image tower: export from model\.pt"):
        tower_of(DeployedClassifier(NAMES, "multilabel"))
