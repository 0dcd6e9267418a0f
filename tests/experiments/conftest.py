from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleft_bundle.experiments import Places, Plan, read_experiment

CONTENT: dict[str, Any] = {
    "name": "small",
    "base": {
        "config_files": ["configs/train.json", "configs/data_folder.json"],
        "overrides": {"dataset_dir": "{data}", "epochs": 1},
    },
    "steps": {
        "pretraining": {"run": "training"},
        "zero_shot": {
            "run": "evaluating",
            "config_files": ["configs/evaluate.json"],
            "overrides": {"checkpoint": "{pretraining}/models/cleft.pt"},
        },
        "probe": {
            "run": "probing",
            "config_files": ["configs/linear_probe.json"],
            "overrides": {"checkpoint": "{pretraining}/models/cleft.pt", "fractions": [0.1, 1.0]},
        },
    },
    "rows": [
        {"label": "LoRA", "steps": ["zero_shot", "probe"], "point": {}},
        {"label": "LoRA, 10 %", "steps": ["probe"], "point": {"fraction": 0.1}},
        {"label": "frozen", "steps": ["zero_shot"], "overrides": {"peft": "none"}},
    ],
    "seeds": [0, 1],
    "reference": "frozen",
    "metrics": ["auroc_macro"],
}


@pytest.fixture
def content() -> dict[str, Any]:
    """An experiment of three rows: one training zero-shot and probed, and another one."""
    return json.loads(json.dumps(CONTENT))


@pytest.fixture
def make_plan(tmp_path: Path, root: Path) -> Callable[..., Plan]:
    """Plan an experiment; what it makes goes to ``tmp_path``."""
    data = tmp_path / "data #1"
    data.mkdir()
    (data / "labels.csv").write_text("image,finding\na.png,x\n")

    def make(content: dict[str, Any], **options: Any) -> Plan:
        file = tmp_path / "small.json"
        file.write_text(json.dumps(content))
        bundle = options.pop("root", root)
        return Plan(read_experiment(file), Places(bundle, tmp_path / "out", str(data)), **options)

    return make
