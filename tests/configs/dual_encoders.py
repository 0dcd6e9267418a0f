"""Runs of the real configs with dual encoders of others, at very small size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from cleft_bundle.engines.training_step import TrainingStep
from tests.conftest import ROOT

BASE = ["train.json", "net_dual_encoder.json"]
TINY = {"epochs": 1, "val_interval": 1, "batch_size": 8, "num_workers": 0, "warmup_steps": 1, "tracking_uri": ""}


def run(names: list[str], run_id: str, workflow_type: str = "train", **override: Any) -> ConfigWorkflow:
    """Run config files of the bundle."""
    files = [str(ROOT / "configs" / name) for name in names]
    workflow = ConfigWorkflow(files, logging_file=False, workflow_type=workflow_type, run_id=run_id, **override)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def weights(path: Path) -> dict[str, torch.Tensor]:
    """What a training wrote into a checkpoint."""
    return torch.load(path, weights_only=True)["weights"]


def stopped(monkeypatch: pytest.MonkeyPatch, steps: int, names: list[str], **override: Any) -> None:
    """Begin a training and end it after so many steps."""
    step, left = TrainingStep.__call__, iter(range(steps))

    def until_then(*args: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("stopped here")
        return step(*args)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", until_then)
        with pytest.raises(RuntimeError):  # which MONAI wraps in another
            run(names, "training", **override)
    assert next(left, None) is None, "it ended before it was stopped"
