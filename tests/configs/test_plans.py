"""Whatever epochs, intervals, batches and images are asked for: one clear error, or an epoch that was validated."""

import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigWorkflow
from PIL import Image

from cleft_bundle.checkpoints import load_classifier, run_of_file
from tests.configs.conftest import bundle_error
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
FILES = [str(ROOT / "configs" / name) for name in ("train.json", "data_folder.json")]
TINY = {
    **{"image_backbone#num_hidden_layers": 1, "image_backbone#hidden_size": 24, "image_backbone#image_size": 28},
    **{"image_size": 28, "text_backbone#n_embd": 32, "num_workers": 0, "tracking_uri": "", "warmup_steps": 2},
}
MOST = 30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(MOST):
        grey = np.random.default_rng(number).integers(0, 255, (28, 28), np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    return folder


def table(folder, training_images):
    rows = ["image,finding,patient_id,split"]
    for number in range(training_images + 4):
        split = "train" if number < training_images else "validation"
        rows.append(f"{number}.png,{'edema' if number % 2 else 'no finding'},p{number},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def run(workflow):
    workflow.initialize()
    workflow.run()


@given(
    epochs=st.integers(1, 4),
    val_interval=st.integers(1, 6),
    batch_size=st.integers(1, 12),
    accumulation_steps=st.integers(1, 4),
    images=st.integers(4, MOST - 4),
)
@settings(max_examples=8, derandomize=True)
def test_an_error_before_training_or_an_epoch_validated_by_this_run(
    pictures, tmp_path_factory, epochs, val_interval, batch_size, accumulation_steps, images
):
    table(pictures, images)
    folder = tmp_path_factory.mktemp("run")
    plan = {"epochs": epochs, "val_interval": val_interval, "batch_size": batch_size}
    values = TINY | plan | {"accumulation_steps": accumulation_steps, "run_name": uuid.uuid4().hex}
    folders = {"dataset_dir": str(pictures), "output_dir": f"{folder}/eval", "models_dir": f"{folder}/models"}
    workflow = ConfigWorkflow(FILES, workflow_type="train", run_id="training", logging_file=False, **values, **folders)
    if images < batch_size or batch_size == 1:  # a contrastive loss needs a second image
        with pytest.raises(RuntimeError) as caught:
            run(workflow)
        assert bundle_error(caught).startswith("batch_size: ")
        assert not (folder / "models" / "cleft.pt").exists()
        return
    run(workflow)
    trainer, evaluator = workflow.trainer, workflow.evaluator
    assert trainer.state.iteration == epochs * (images // batch_size)
    best = evaluator.state.best_metric_epoch
    assert best == epochs or best % val_interval == 0
    assert 1 <= best <= epochs
    assert 0 <= evaluator.state.best_metric <= 1
    written = run_of_file(folder / "models" / "cleft.pt")
    assert written["name"] == values["run_name"]
    assert load_classifier(folder / "models" / "model.pt").provenance["run"] == written
