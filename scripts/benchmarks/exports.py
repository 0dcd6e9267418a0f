"""Scores, ranking and AUROC of a classifier in each exported form, on a folder of real images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import load_net_with_metadata
from tqdm import tqdm

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.data import list_images
from cleft_bundle.data.datasets import folder
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Predictions, bootstrap, paired_bootstrap
from cleft_bundle.networks import OnnxClassifier, ZeroShotClassifier
from cleft_bundle.packaging import FILES, export_classifier
from cleft_bundle.transforms import build_transforms

Scorer = Callable[[torch.Tensor], torch.Tensor]


def load_form(form: str, path: Path) -> Scorer:
    """The function that scores images [B, 3, H, W] by an exported file."""
    if form == "torchscript":
        return load_net_with_metadata(str(path))[0]
    if form == "torch_export":
        return torch.export.load(path).module()
    return OnnxClassifier(path)


def exports(
    dataset_dir: str,
    model_path: str = "models/model.pt",
    split: str = "validation",
    batch_size: int = 5,
    resamples: int = 1000,
    out: str | None = None,
) -> None:
    """Export a classifier in all forms, score the images of a folder in each, and print a table.

    The largest difference is that of any score from eager, at batch 1 and at `batch_size`. Pairs are those of two
    images in one class, which the form may put in another order than eager. Where the folder has labels, AUROC is
    the mean over the classes and its loss that of eager minus that of the form, with 95 % intervals by resampling
    patients.

    Args:
        dataset_dir: folder of images. With a labels.csv, see docs/datasets.md, whose classes are those of the
            classifier, one split of it is taken; without, every image below it.
        model_path: the classifier.
        split: of labels.csv: train, validation or test.
        batch_size: images scored at a time.
        resamples: number of resamples.
        out: file to write the table to as well.

    Raises:
        BundleError: where the folder has other classes than the classifier, or no image of the split.
    """
    classifier = load_classifier(model_path)
    labelled = Path(dataset_dir, "labels.csv").is_file()
    items: list[dict[str, Any]] = _labelled(dataset_dir, split, classifier) if labelled else list_images(dataset_dir)
    transform = build_transforms(classifier.preprocessing["transforms"])
    images = torch.stack([transform({"image": item["image"]})["image"] for item in tqdm(items, desc="reading")])
    eager = _score(classifier, images, 1)
    truth = _truth(eager, items, classifier) if labelled else None
    columns = ["form", "file, MB", "largest difference of a score", "pairs in another order, %"]
    columns += ["AUROC", "loss of AUROC"] if labelled else []
    lines = [
        f"{len(items)} images, {', '.join(classifier.class_names)}",
        "",
        f"| {' | '.join(columns)} |",
        "| --- |" + " ---: |" * (len(columns) - 1),
        _row("eager", Path(model_path), eager, [eager], truth, resamples),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for form, path in zip(FILES, export_classifier(classifier, Path(temporary, "model")), strict=True):
            score = load_form(form, path)
            found = [_score(score, images, size) for size in (1, batch_size)]
            lines.append(_row(form, path, eager, found, truth, resamples))
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _labelled(dataset_dir: str, split: str, classifier: ZeroShotClassifier) -> list[dict[str, Any]]:
    """The items of a split, with `label` in the order of the classifier's classes."""
    prompts = folder.load_prompts(dataset_dir, template="{findings}")
    if sorted(prompts.classes) != sorted(classifier.class_names):
        raise BundleError(f"{dataset_dir} has the classes {sorted(prompts.classes)}, not {classifier.class_names}")
    order = [list(prompts.classes).index(name) for name in classifier.class_names]
    items = [item for item in folder.datalist(dataset_dir, prompts=prompts) if item.get("split") == split]
    if not items:
        raise BundleError(f"{dataset_dir}: no image of the split {split!r}")
    return [item | {"label": np.array(item["label"])[order]} for item in items]


def _truth(scores: np.ndarray, items: list[dict[str, Any]], classifier: ZeroShotClassifier) -> Predictions:
    labels = np.stack([item["label"] for item in items])
    names, patients = ([item[key] for item in items] for key in ("name", "patient_id"))
    return Predictions(scores, labels, classifier.class_names, classifier.task, names, patients)


@torch.no_grad()
def _score(network: Scorer, images: torch.Tensor, batch_size: int) -> np.ndarray:
    return torch.cat([network(batch) for batch in tqdm(images.split(batch_size), desc="scoring")]).numpy()


def _row(
    form: str, path: Path, eager: np.ndarray, found: list[np.ndarray], truth: Predictions | None, resamples: int
) -> str:
    largest = max(np.abs(scores - eager).max() for scores in found)
    turned = max(_turned(eager, scores) for scores in found)
    cells = [form, f"{path.stat().st_size / 1e6:.0f}", f"{largest:.1e}", f"{100 * turned:.3g}"]
    if truth is not None:
        exported = replace(truth, scores=found[0])
        auroc = bootstrap(exported, ["auroc"], resamples)["auroc_macro"]
        loss = paired_bootstrap(truth, exported, ["auroc"], resamples)["auroc_macro"]
        cells += [f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]" for value in (auroc, loss)]
    return f"| {' | '.join(cells)} |"


def _turned(eager: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of images whose order differs, over all classes of scores [N, K]."""
    before, after = (np.sign(of[:, None] - of[None]) for of in (eager, scores))
    return float((before * after < 0).sum() / max(1, (before != 0).sum()))
