"""What becomes of scores and AUROC in each exported form of a classifier, on a labelled folder of real images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from monai.data import load_net_with_metadata
from tqdm import tqdm

from cleft_bundle.checkpoints import FORMS, export_classifier, load_classifier
from cleft_bundle.data import folder
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Predictions, bootstrap, paired_bootstrap
from cleft_bundle.networks import OnnxClassifier
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
    """Export a classifier in all forms, score the images of one split in each, and print a table.

    AUROC is the mean over the classes, its loss that of eager minus that of the form; both with 95 % intervals by
    resampling patients. The largest difference is that of any score from eager, at batch 1 and at `batch_size`.

    Args:
        dataset_dir: folder of images with a labels.csv, see docs/datasets.md; its classes are those of the classifier.
        model_path: the classifier.
        split: of labels.csv: train, validation or test.
        batch_size: images scored at a time.
        resamples: number of resamples.
        out: file to write the table to as well.

    Raises:
        BundleError: where the folder has other classes than the classifier, or no image of the split.
    """
    classifier = load_classifier(model_path)
    prompts = folder.load_prompts(dataset_dir, template="{findings}")
    if sorted(prompts.classes) != sorted(classifier.class_names):
        raise BundleError(
            f"{model_path} has the classes {classifier.class_names}, {dataset_dir} {sorted(prompts.classes)}"
        )
    items = [item for item in folder.datalist(dataset_dir, prompts=prompts) if item.get("split") == split]
    if not items:
        raise BundleError(f"{dataset_dir}: no image of the split {split!r}")
    order = [list(prompts.classes).index(name) for name in classifier.class_names]
    transform = build_transforms(classifier.preprocessing["transforms"])
    images = torch.stack([transform({"image": item["image"]})["image"] for item in tqdm(items, desc="reading")])
    eager = Predictions(
        _score(classifier, images, 1),
        np.array([item["label"] for item in items])[:, order],
        classifier.class_names,
        classifier.task,
        [item["name"] for item in items],
        [item["patient_id"] for item in items],
    )
    lines = [
        f"{len(items)} images of {len(set(eager.patients))} patients, {', '.join(classifier.class_names)}",
        "",
        "| form | file, MB | largest difference of a score | AUROC | loss of AUROC |",
        "| --- | ---: | ---: | ---: | ---: |",
        _row("eager", Path(model_path), 0.0, eager, eager, resamples),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for form, path in zip(FORMS, export_classifier(classifier, Path(temporary, "model")), strict=True):
            score = load_form(form, path)
            single, batched = _score(score, images, 1), _score(score, images, batch_size)
            largest = max(np.abs(found - eager.scores).max() for found in (single, batched))
            lines.append(_row(form, path, largest, eager, replace(eager, scores=single), resamples))
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


@torch.no_grad()
def _score(network: Scorer, images: torch.Tensor, batch_size: int) -> np.ndarray:
    return torch.cat([network(batch) for batch in tqdm(images.split(batch_size), desc="scoring")]).numpy()


def _row(form: str, path: Path, largest: float, eager: Predictions, exported: Predictions, resamples: int) -> str:
    auroc = bootstrap(exported, ["auroc"], resamples)["auroc_macro"]
    loss = paired_bootstrap(eager, exported, ["auroc"], resamples)["auroc_macro"]
    cells = [form, f"{path.stat().st_size / 1e6:.0f}", f"{largest:.1e}"]
    cells += [f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]" for found in (auroc, loss)]
    return f"| {' | '.join(cells)} |"
