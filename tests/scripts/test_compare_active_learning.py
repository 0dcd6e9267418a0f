import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cleft_bundle.data import make_splits, write_datalist
from cleft_bundle.data.datasets import folder
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from tests import processes
from tests.conftest import TINY_VIT
from tests.transforms.test_original_pixels import preset_declared

NAMES = ["no finding", "a", "b"]


@pytest.mark.slow
def test_the_comparison_leaves_out_whom_the_classifier_was_trained_on(root, tmp_path):
    rng, rows = np.random.default_rng(0), []
    for number in range(90):
        kind, split = number % 3, "train" if number < 60 else "validation"
        pixels = rng.integers(0, 100, (28, 28)) + 70 * kind
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "finding": NAMES[kind], "split": split, "patient_id": f"p{number}"})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    prompts = folder.load_prompts(str(tmp_path), template="{findings}")
    splits = make_splits(folder.datalist(str(tmp_path), prompts=prompts))
    seen = {**splits, "train": splits["train"][:20]}
    write_datalist(seen, tmp_path / "eval" / "datalist.json", tmp_path, list(prompts.classes))
    settings = {"image_size": 28, "transforms": preset_declared("train.json", 28)}
    classifier = ZeroShotClassifier(
        ImageEncoder(TINY_VIT, embedding_dim=8), list(prompts.classes), "multiclass", settings
    )
    torch.nn.init.normal_(classifier.class_weights, generator=torch.Generator().manual_seed(0))
    torch.save(classifier.state_dict(), tmp_path / "model.pt")

    command = [str(root / "scripts" / "compare_active_learning.py"), "--dataset_dir", str(tmp_path)]
    options = "--rounds 1 --labels 4 --seeds 2 --pool_fraction 0.8 --trained_on eval/datalist.json --model model.pt"
    done = processes.run([*command, *options.split()], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 images to label, 30 to measure on; 2 seeds" in done.stdout
    curves = pd.read_csv(tmp_path / "eval" / "active_learning.csv")
    assert sorted(curves["labels"].unique()) == [0, 4]
    assert Image.open(tmp_path / "eval" / "active_learning.png").width > 800
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| entropy")]
    means = curves[curves["strategy"] == "entropy"].groupby("labels")["auroc_macro"].mean()
    assert [float(cell) for cell in rows[0][1:3]] == pytest.approx(list(means), abs=1e-4)
    lost = processes.run([*command, "--model", "no.pt"], tmp_path)
    assert lost.returncode == 1
    assert lost.stderr.strip().splitlines()[-1].startswith("error: ")
