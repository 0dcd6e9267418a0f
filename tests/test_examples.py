"""The examples in docstrings run as they stand, and the names that people use most have one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import cleft_bundle
from tests.conftest import ROOT

#: Room to its names whose docstrings show how they are used.
MOST_USED = {
    "cleft_bundle.data": (
        *("RadiographReader", "RadiographWriter", "fingerprint", "is_multi_label", "list_images", "load_prompts"),
        *("make_splits", "names_as_prompts", "patient_fraction", "pseudonym", "select_split"),
    ),
    "cleft_bundle.data.datasets.folder": ("datalist",),
    "cleft_bundle.engines": ("warmup_cosine",),
    "cleft_bundle.losses": ("ClassificationLoss", "ContrastiveLoss", "SigmoidLoss"),
    "cleft_bundle.metrics": (
        *("Predictions", "bootstrap", "choose_thresholds", "classification_metrics", "confusion_matrix"),
        *("delong_interval", "fit_temperature", "holm", "p_text"),
    ),
    "cleft_bundle.networks": ("CLEFT", "ImageEncoder", "TextEncoder", "ZeroShotClassifier"),
    "cleft_bundle.transforms": (
        *("CropBreast", "GreyToRGB", "NormalizeForBackbone", "PadToSquare", "RandWindow", "WindowPercentile"),
        *("backbone_statistics", "build_transforms"),
    ),
}
PROMPT = ">>> "
FOUND = [
    module.name
    for module in pkgutil.walk_packages(cleft_bundle.__path__, "cleft_bundle.")
    if "monai_label.lib" not in module.name
    and any(PROMPT in path.read_text(encoding="utf-8") for path in ROOT.glob(f"{module.name.replace('.', '/')}.py"))
]


@pytest.mark.parametrize("name", FOUND)
def test_examples_run_as_they_stand(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0, "see what is printed"


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in MOST_USED.items() for name in names])
def test_the_most_used_names_have_an_example(room, name):
    assert PROMPT in (getattr(importlib.import_module(room), name).__doc__ or "")


def test_there_are_more_than_thirty():
    assert sum(map(len, MOST_USED.values())) > 30
