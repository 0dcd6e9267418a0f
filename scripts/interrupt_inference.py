"""Kill an inference again and again: does it end with one row per file and the scores of an undisturbed run?

python scripts/interrupt_inference.py --files 2000 --damaged 0.05 --kills 3
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import fire
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from cleft_bundle.checkpoints import save
from cleft_bundle.data.phantoms.dicom import Header, write
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "inference.json"
CLASSES = ("edema", "effusion", "no finding")


def main(files: int = 2000, damaged: float = 0.05, kills: int = 3, num_workers: int = 1, seed: int = 0) -> None:
    """Print what became of the files, and leave with status 1 where the two runs differ.

    Args:
        files: how many images, DICOM of several transfer syntaxes and PNG in turn.
        damaged: share of them that is cut off or no image at all.
        kills: how often the disturbed run gets SIGKILL, at equal distances.
        num_workers: processes that read.
        seed: of images, damage and the classifier, whose weights are random.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cleft_bundle.handlers", "cleft_bundle.inferers", "monai.engines"])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root / "images", files, damaged, seed)
        save(classifier(seed).state_dict(), root / "model.pt")
        options = {
            "dataset_dir": str(root / "images"),
            "model_path": str(root / "model.pt"),
            "num_workers": num_workers,
        }
        started = time.perf_counter()
        run(context, root / "undisturbed", options)
        seconds = time.perf_counter() - started
        stops = [run(context, root / "killed", options, files * (n + 1) // (kills + 1)) for n in range(kills)]
        run(context, root / "killed", options)
        expected, found = (read(root / place / "predictions.csv") for place in ("undisturbed", "killed"))
    same = [row["image"] for row in expected] == [row["image"] for row in found] and len(found) == files
    errors = [(row["image"], row["error"]) for row in found]
    same = same and errors == [(row["image"], row["error"]) for row in expected]
    worst = max(abs(float(a[c] or 0) - float(b[c] or 0)) for a, b in zip(expected, found, strict=True) for c in CLASSES)
    print(f"files {files}, undisturbed run {seconds:.0f} s with imports")
    print(f"rows when killed: {', '.join(map(str, stops))}")
    print(f"rows at the end {len(found)}, of different files {len({row['image'] for row in found})}")
    print(f"rows with a reason {sum(bool(error) for _, error in errors)}, largest difference of a score {worst:.6f}")
    sys.exit(0 if same and worst <= 2e-6 else 1)  # a torn line moves the limits of batches, and so the last digit


def draw(folder: Path, files: int, damaged: float, seed: int) -> None:
    """Write small random images, and spoil some."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    spoilt = set(rng.choice(files, round(files * damaged), replace=False).tolist())
    for number in range(files):
        grey = rng.random((48, 40))
        path = folder / f"{number:05d}.{'png' if number % 2 else 'dcm'}"
        if number % 2:
            Image.fromarray((grey * 255).astype(np.uint8)).save(path)
        else:
            write(path, grey, Header("chest", number + 1, 1, 1, seed, "F", 50, "20200101", "PA"), rng)
        if number in spoilt:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if rng.random() < 0.5 else b"no image")


def classifier(seed: int) -> ZeroShotClassifier:
    """A tiny classifier of random weights."""
    torch.manual_seed(seed)
    backbone = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    transforms = [
        {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
        {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [28, 28], "mode": "area"},
        {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
        {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
    ]
    tower = ImageEncoder(backbone | {"patch_size": 14, "image_size": 28}, embedding_dim=16)
    built = ZeroShotClassifier(tower, CLASSES, "multilabel", {"image_size": 28, "transforms": transforms})
    built.class_weights.normal_()
    return built


def score(options: dict[str, object]) -> None:
    """Work of the killed process: ``monai.bundle run`` on the real config."""
    multiprocessing.set_start_method("fork", force=True)  # that of a run from a shell
    torch.set_num_threads(1)
    workflow = ConfigWorkflow(str(CONFIG), workflow_type="infer", logging_file=False, **options)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run(context: multiprocessing.context.BaseContext, output: Path, options: dict[str, object], stop: int = 0) -> int:
    """Score the folder; kill the process once there are ``stop`` rows. Returns how many there were then."""
    process = context.Process(target=score, args=(options | {"output_dir": str(output)},))  # type: ignore[attr-defined]
    process.start()
    while stop and process.is_alive():
        if rows(output) >= stop:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    if not stop and process.exitcode:
        sys.exit(f"error: the run ended with status {process.exitcode}")
    return rows(output)


def rows(output: Path) -> int:
    """Number of rows of the journal, without its first line."""
    journal = output / "predictions.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.is_file() else 0


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    fire.Fire(main)
