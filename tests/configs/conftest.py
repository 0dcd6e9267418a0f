"""Runs of the real configs at very small size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine
from monai.bundle import ConfigWorkflow

from cleft_bundle.data import phantoms
from cleft_bundle.errors import BundleError
from tests.configs import dual_encoders
from tests.conftest import ROOT, save_dual_encoder

TINY = {
    "epochs": 1,
    "val_interval": 1,
    "batch_size": 16,
    "num_workers": 0,
    "image_backbone#num_hidden_layers": 1,
    "image_backbone#hidden_size": 32,
    "image_backbone#image_size": 56,
    "image_size": 56,
}


def bundle_error(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The one line that a user reads, below what MONAI wraps around it."""
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, BundleError):
        cause = cause.__cause__
    assert cause is not None, caught.value
    assert "\n" not in str(cause)
    return str(cause)


@pytest.fixture(scope="session")
def chest_phantoms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of 60 chest phantom patients."""
    return phantoms.chest(str(tmp_path_factory.mktemp("phantoms")), patients=60, seed=0)


@pytest.fixture(scope="session")
def few_phantoms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of 32 chest phantom patients, too few to calibrate, for tests that only need a training to run."""
    return phantoms.chest(str(tmp_path_factory.mktemp("phantoms")), patients=32, seed=0)


@pytest.fixture(scope="session")
def breast_phantoms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of 20 breast phantom patients."""
    return phantoms.breast(str(tmp_path_factory.mktemp("phantoms")), patients=20, seed=0)


@pytest.fixture(scope="session")
def dual_training(
    tmp_path_factory: pytest.TempPathFactory, chest_phantoms: str
) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Train a family, once: the folder, and the overrides that it was run with."""
    done: dict[str, tuple[Path, dict[str, Any]]] = {}

    def train(family: str) -> tuple[Path, dict[str, Any]]:
        if family not in done:
            folder = tmp_path_factory.mktemp(family)
            source = save_dual_encoder(folder / "model", family)
            options = dual_encoders.TINY | {"dual_encoder": source, "dataset_dir": chest_phantoms, "image_peft": "lora"}
            outputs = {"output_dir": str(folder / "eval"), "models_dir": str(folder / "models")}
            dual_encoders.run(dual_encoders.BASE, "training", **options | outputs)
            done[family] = folder, options
        return done[family]

    return train


@pytest.fixture(scope="module", autouse=True)
def unplaced_figures() -> Iterator[None]:
    """Draw figures without moving their parts apart, which takes as long again: no test here looks at them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
        yield


@pytest.fixture
def run_config(tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Run config files of the bundle with overrides; outputs go to ``tmp_path``."""
    return runner(tmp_path)


def runner(folder: Path) -> Callable[..., ConfigWorkflow]:
    """What runs config files of the bundle with overrides; outputs go to a folder."""

    def run(names: list[str], run_id: str = "run", **override: Any) -> ConfigWorkflow:
        outputs: dict[str, Any] = {"output_dir": str(folder / "eval")}
        if "train.json" in names:
            outputs["models_dir"] = str(folder / "models")
        if "evaluate.json" in names:
            # most of a run otherwise: all 60 images of each set, 1,000 resamples, and heat maps of many cases
            outputs |= {"shift_images": 24, "resamples": 20, "report_cases": 1}
        workflow = ConfigWorkflow(
            [str(ROOT / "configs" / name) for name in names],
            logging_file=False,
            workflow_type="train" if "train.json" in names else "infer",
            run_id=run_id,
            **(outputs | override),
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return workflow

    return run
