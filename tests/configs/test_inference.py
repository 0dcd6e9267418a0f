"""configs/inference.json: what it takes, what it writes, and what it does without."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.checkpoints import save
from cleft_bundle.data.phantoms.dicom import Header, write
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from tests.configs.conftest import bundle_error
from tests.conftest import ROOT, TINY_VIT

CLASSES = ["pneumonia", "pleural thickening", "no finding"]
TRANSFORMS = [
    {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
    {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
    {"_target_": "Resized", "keys": "image", "spatial_size": [28, 28], "mode": "area"},
    {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
    {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
]


@pytest.fixture
def model_path(tmp_path):
    """A tiny classifier of random weights, on disk."""
    classifier = ZeroShotClassifier(
        ImageEncoder(TINY_VIT, embedding_dim=8), CLASSES, "multilabel", {"image_size": 28, "transforms": TRANSFORMS}
    )
    classifier.class_weights.normal_(generator=torch.Generator().manual_seed(0))
    save(classifier.state_dict(), tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


@pytest.fixture
def images(tmp_path):
    """Two DICOM files, a PNG and no image."""
    rng = np.random.default_rng(0)
    for number in range(2):
        header = Header("chest", number + 1, 1, 1, 0, "F", 50, "20200101", "PA")
        write(tmp_path / "images" / f"{number}.dcm", rng.random((40, 30)), header, rng)
    Image.fromarray(rng.integers(0, 255, (30, 50), np.uint8)).save(tmp_path / "images" / "2.png")
    (tmp_path / "images" / "3.dcm").write_text("no image")
    return tmp_path / "images"


def table(tmp_path):
    with (tmp_path / "eval" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [0, 1])
def test_every_output_of_an_image_bears_its_name(run_config, images, model_path, tmp_path, workers):
    pytest.importorskip("highdicom", reason="needs the extra: pip install 'cleft_bundle[sr]'")
    switches = dict.fromkeys(("structured_reports", "heat_maps", "secondary_captures"), True)
    switches["heat_map_findings"] = "all"  # without thresholds none is called
    run_config(["inference.json"], dataset_dir=str(images), model_path=model_path, num_workers=workers, **switches)
    rows = table(tmp_path)
    assert [row["image"] for row in rows] == ["0.dcm", "1.dcm", "2.png", "3.dcm"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]
    written = {
        place: {path.name for path in (tmp_path / "eval" / place).iterdir()}
        for place in ("structured_reports", "heat_maps", "secondary_captures")
    }
    names = [row["name"] for row in rows]
    kinds = ("1_pneumonia", "2_pleural_thickening")
    assert written["structured_reports"] == {f"{name}.dcm" for name in names[:2]}
    assert written["secondary_captures"] == {f"{name}_{kind}.dcm" for name in names[:2] for kind in kinds}
    assert written["heat_maps"] == {f"{name}_{kind}.png" for name in names[:3] for kind in kinds}
    with Image.open(tmp_path / "eval" / "heat_maps" / f"{names[2]}_{kinds[1]}.png") as picture:
        assert picture.text["Title"] == "heat map of pleural thickening"
        assert picture.text["Score"] == f"{float(rows[2]['pleural thickening']):.3f}"
        assert picture.text["Call"] == "not called, no threshold"


def test_a_second_run_scores_what_is_new_only(run_config, images, model_path, tmp_path):
    def score(**options):
        workflow = run_config(["inference.json"], dataset_dir=str(images), model_path=model_path, **options)
        return len(workflow.parser.get_parsed_content("dataset"))

    assert score() == 4
    before = table(tmp_path)
    assert score() == 0
    assert table(tmp_path) == before
    shutil.copy(images / "2.png", images / "4.png")
    assert score() == 1
    assert table(tmp_path)[:4] == before
    assert [row["image"] for row in table(tmp_path)] == ["0.dcm", "1.dcm", "2.png", "3.dcm", "4.png"]
    assert score(resume="false") == 5


def test_another_model_is_refused_until_resume_is_off(run_config, images, model_path):
    run_config(["inference.json"], dataset_dir=str(images), model_path=model_path)
    state = torch.load(model_path)
    state["class_weights"] += 0.1
    save(state, model_path)
    with pytest.raises(RuntimeError) as caught:
        run_config(["inference.json"], dataset_dir=str(images), model_path=model_path)
    assert "made with other model: pass another --output_dir, or --resume false" in bundle_error(caught)
    run_config(["inference.json"], dataset_dir=str(images), model_path=model_path, resume=False)


def test_a_list_is_scored_in_its_order(run_config, images, model_path, tmp_path):
    (images / "list.txt").write_text("2.png\nnot there.dcm\n0.dcm\n")
    run_config(["inference.json"], dataset_dir=str(images / "list.txt"), model_path=model_path)
    rows = table(tmp_path)
    assert [row["image"] for row in rows] == ["2.png", "not there.dcm", "0.dcm"]
    assert [row["error"] for row in rows] == ["", "does not exist", ""]


@pytest.mark.slow
def test_inference_needs_no_optional_package(images, model_path, tmp_path):
    script = Path(__file__).with_name("without_extras.py")
    options = ["run", "--config_file", ROOT / "configs" / "inference.json", "--dataset_dir", images]
    options += ["--model_path", model_path, "--output_dir", tmp_path / "eval"]
    again = ["--and", *options, "--structured_reports", "true", "--resume", "false"]
    words = map(str, [sys.executable, script, *options, "--heat_maps", "true", *again])
    done = subprocess.run(list(words), capture_output=True, text=True, check=False, cwd=ROOT)
    assert len(json.loads((tmp_path / "eval" / "predictions.json").read_text())["predictions"]) == 4, done.stderr
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'cleft_bundle[sr]'")
