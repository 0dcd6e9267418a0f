r"""Compare the strategies of active learning with random on a labelled folder.

python scripts/compare_active_learning.py --model models/model.pt --trained_on eval/datalist.json \
  --dataset_dir cxr_kermany --shared_patients drop --picture docs/images/active_learning.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import fire
import pandas as pd
import torch
from studies.labelling import MEASURES, Embedded, advantages, labelling_figure, simulate_labelling

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.data import make_splits, read_datalist
from cleft_bundle.data.datasets import folder
from cleft_bundle.engines.features import embed_images
from cleft_bundle.errors import BundleError
from cleft_bundle.files import replacing
from cleft_bundle.transforms import build_transforms


def main(
    dataset_dir: str,
    model: str = "models/model.pt",
    trained_on: str | None = None,
    shared_patients: str = "error",
    rounds: int = 5,
    labels: int = 20,
    seeds: int = 5,
    pool_fraction: float = 0.5,
    picture: str = "eval/active_learning.png",
) -> None:
    """Print the curves as a table in Markdown, and what each strategy has ahead of random; draw both.

    The training split of the folder is what is labelled, validation and test split are what is measured on.

    Args:
        dataset_dir: a folder with ``labels.csv``, see README.
        model: the classifier that training wrote.
        trained_on: the ``datalist.json`` of its training, whose training patients are left out of the pool.
        shared_patients: what to do with patients in several splits, ``error`` or ``drop``.
        rounds: how often the reader labels.
        labels: how many images each time.
        seeds: how often all is done, each time with another share of the pool.
        pool_fraction: that share.
        picture: the file of the picture; the curves go beside it, with the suffix ``.csv``.
    """
    try:
        classifier = load_classifier(model)
        prompts = folder.load_prompts(dataset_dir, template="{findings}")
        names = list(prompts.classes)
        if names != classifier.class_names:
            raise BundleError(f"{model} has the classes {classifier.class_names}, the folder {names}")
        splits = make_splits(folder.datalist(dataset_dir, prompts=prompts), shared_patients=shared_patients)
        known = read_datalist(trained_on, dataset_dir, names) if trained_on else []
        seen = {item["patient_id"] for item in known if item["split"] == "train"}
        pool = [item for item in splits["train"] if item["patient_id"] not in seen]
        test = [item for item in splits["validation"] + splits["test"] if item["patient_id"] not in seen]
        transform = build_transforms(classifier.preprocessing["transforms"])
        embedded = []
        for items in (pool, test):
            with torch.no_grad():
                rows = embed_images(items, transform, classifier.image_encoder, "cpu", num_workers=1)
            embedded.append(Embedded(items, rows))
        curves = simulate_labelling(
            classifier, *embedded, rounds=rounds, labels=labels, seeds=seeds, pool_fraction=pool_fraction
        )
    except BundleError as error:
        sys.exit(f"error: {error}")
    print(f"{len(pool)} images to label, {len(test)} to measure on; {seeds} seeds\n")
    for measure, name in MEASURES.items():
        table = curves.pivot_table(index="strategy", columns="labels", values=measure, sort=False)
        ahead = advantages(curves, measure)
        table["ahead of random, mean over rounds"] = ahead["mean"]
        table["least and most of a seed"] = [_range(ahead, strategy) for strategy in table.index]
        print(f"{name}\n\n{_markdown(table)}\n")
    with replacing(Path(picture).with_suffix(".csv")) as temporary:
        curves.to_csv(temporary, index=False)
    with replacing(picture) as temporary:
        labelling_figure(curves, Path(dataset_dir).name).savefig(temporary, dpi=120, format="png")


def _range(ahead: pd.DataFrame, strategy: str) -> str:
    return f"{ahead['low'][strategy]:+.4f} to {ahead['high'][strategy]:+.4f}" if strategy in ahead.index else ""


def _markdown(table: pd.DataFrame) -> str:
    head = ["strategy", *(f"{c} labels" if isinstance(c, int) else c for c in table.columns)]
    lines = [head, ["---"] * len(head)]
    for strategy, row in table.iterrows():
        cells = ["" if pd.isna(v) else v if isinstance(v, str) else f"{v:.4f}" for v in row]
        lines.append([str(strategy), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    fire.Fire(main)
