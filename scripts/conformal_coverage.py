"""Measure the coverage of conformal sets over random divisions of labelled patients.

python scripts/conformal_coverage.py --model_path models/model.pt --datalist eval/datalist.json --dataset_dir FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fire
import numpy as np

from cleft_bundle.data.usable_labels import label_matrix
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import Scorer
from cleft_bundle.metrics import COVERAGE, conformal_limits, conformal_sets


def main(
    model_path: str = "models/model.pt",
    datalist: str = "eval/datalist.json",
    dataset_dir: str = ".",
    split: str = "validation",
    divisions: int = 50,
    seed: int = 0,
) -> str:
    """Choose limits on half of the patients, count on the others, and again.

    Args:
        model_path: the classifier.
        datalist: of its training.
        dataset_dir: folder that the images' paths are below.
        split: whose patients.
        divisions: number of random divisions.
        seed: of them.

    Returns:
        a table: by class the mean coverage, its spread over the divisions, and the share of sets that have the class.
    """
    items = json.loads(Path(datalist).read_text())[split]
    scorer = Scorer(model_path)
    found = scorer.score({"image": Path(dataset_dir) / item["image"]} for item in items)
    kept = np.flatnonzero([not error for error in found.errors])
    items, scores = [items[place] for place in kept], found.scores[kept]
    labels, names = label_matrix(items), scorer.class_names
    owners = np.unique([item["patient_id"] for item in items], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    shares, sizes = [], []
    for _ in range(divisions):
        chosen = (rng.permutation(owners.max() + 1) < (owners.max() + 1) // 2)[owners]
        limits = conformal_limits(scores[chosen], labels[chosen], names)
        sets, known = conformal_sets(scores[~chosen], names, limits), labels[~chosen] == 1
        shares.append([*((sets & known).sum(axis=0) / known.sum(axis=0)), (sets & known).sum() / known.sum()])
        sizes.append([*sets.mean(axis=0), sets.sum(axis=1).mean()])
    lines = [
        f"| class | covered, % ({COVERAGE:.0%} is promised) | from to | in a set |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, share, size in zip(
        [*names, "all (classes in a set)"], np.array(shares).T, np.array(sizes).T, strict=True
    ):
        span = f"{100 * share.min():.0f} to {100 * share.max():.0f}"
        lines.append(f"| {name} | {100 * share.mean():.1f} | {span} | {size.mean():.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
