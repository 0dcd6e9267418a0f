"""Evaluate networks of which the truth is known, and show what is claimed of them: a table of docs/statistics.md.

python scripts/simulate_networks.py --out networks.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args

import fire
import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import (
    Predictions,
    Screening,
    apply_thresholds,
    bootstrap,
    calibration_line,
    delong_comparison,
    retrieval_chance,
    retrieval_metrics,
    retrieval_ranks,
    subgroup_metrics,
)

Network = Literal["useless", "perfect", "collapsed"]
NETWORKS: tuple[Network, ...] = get_args(Network)
CLASSES = ("effusion", "edema", "fracture")
PREVALENCE = (0.3, 0.15, 0.08)
CAPTIONS = 100
_WIDTH = 32


def draw(network: Network, patients: int, rng: np.random.Generator) -> tuple[np.ndarray, Predictions]:
    """Draw one or two images of each patient, and what a network makes of them: logits [N, K] and predictions.

    ``useless`` gives noise, ``perfect`` parts all classes, ``collapsed`` gives every image the same logits but for the
    rounding of single precision.
    """
    owner = np.repeat(np.arange(patients), rng.integers(1, 3, patients))
    labels = (rng.random((patients, len(CLASSES))) < PREVALENCE).astype(float)[owner]
    noise = rng.normal(size=labels.shape)
    logits = {"useless": noise, "perfect": 8 * labels - 4 + 0.5 * noise, "collapsed": 0.3 * (1 + 1e-7 * noise)}[network]
    sex = np.array(["F", "M"])[rng.integers(0, 2, patients)][owner]
    names = np.arange(len(owner)).astype(str)
    scores = 1 / (1 + np.exp(-logits))
    return logits, Predictions(scores, labels, CLASSES, "multilabel", names, owner.astype(str), {"sex": sex})


def embeddings(network: Network, images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw embeddings [N, D] of images and of their captions, and which caption each image has [N]."""
    caption = rng.integers(0, CAPTIONS, images)
    own = rng.normal(size=(CAPTIONS, _WIDTH))[caption]
    text = np.ones_like(own) if network == "collapsed" else own
    image = own if network == "perfect" else rng.normal(size=own.shape)
    return _unit(image), _unit(text), caption


def claims(network: Network, patients: int, resamples: int, seed: int) -> dict[str, float]:
    """Evaluate a network as an evaluation does, with calibration and thresholds chosen on other patients.

    Returns:
        ``classes``; ``auroc``, their mean; ``held``, how many have 0.5 within the interval of AUROC; ``missed`` and
        ``alarms``, numbers of images at the thresholds; ``slope`` of the calibration line, NaN where there is none;
        ``gap`` and ``gap_p`` of the mean AUROC between women and men; ``delong_p``, the lowest p of a class against the
        perfect network's scores; ``recall_at_1`` from image to text, and its ``chance``.
    """
    rng = np.random.default_rng(seed)
    logits, validation = draw(network, patients, rng)
    chosen = Screening().choose(logits, validation.labels, CLASSES, "multilabel", validation.patients)
    logits, test = draw(network, patients, rng)
    test = Predictions(chosen.calibration(logits), *(getattr(test, key) for key in _REST))
    intervals = bootstrap(test, ["auroc"], resamples, seed)
    points = apply_thresholds(test, chosen.thresholds, None, resamples, seed)
    line = calibration_line(test.scores.ravel(), test.labels.ravel(), np.repeat(test.patients, len(CLASSES)))
    gap = subgroup_metrics(test, ["auroc"], resamples, seed)["sex"].gaps.get("auroc_macro")
    ideal = Predictions(test.labels + 0.0, *(getattr(test, key) for key in _REST))
    image, text, caption = embeddings(network, len(test), rng)
    ranks = retrieval_ranks(image, text, caption)
    figures = [intervals[f"auroc/{name}"] for name in CLASSES]
    return {
        "classes": len(CLASSES),
        "auroc": intervals["auroc_macro"].value,
        "held": sum(figure.low <= 0.5 <= figure.high for figure in figures),
        "missed": sum(point.fn for point in points.values()),
        "alarms": sum(point.fp for point in points.values()),
        "slope": line.slope.value,
        "gap": float("nan") if gap is None else gap.difference.value,
        "gap_p": float("nan") if gap is None else gap.difference.p_value,
        "delong_p": min(test.p_value for test in delong_comparison(test, ideal).values()),
        "recall_at_1": retrieval_metrics(*ranks)["image_to_text_recall_at_1"],
        "chance": retrieval_chance(caption)["image_to_text_recall_at_1"],
    }


def main(studies: int = 100, patients: int = 300, resamples: int = 300, seed: int = 0, out: str | None = None) -> None:
    """Simulate and print the table.

    Args:
        studies: number of evaluations of each network.
        patients: number of patients of each, with one or two images.
        resamples: number of bootstrap resamples.
        seed: of the first study; each has its own.
        out: file to write the table to as well.
    """
    if studies < 1 or patients < 50:
        raise BundleError(f"expected 1 study of 50 patients or more, got {studies} of {patients}")
    heads = ["mean AUROC", "0.5 within the interval, %", "missed cases", "false alarms"]
    heads += ["gap of the sexes, p < 0.05, %", "recall@1", "chance"]
    lines = [f"| network | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for network in NETWORKS:
        rows = [claims(network, patients, resamples, seed + number) for number in range(studies)]
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        told = 100 * np.mean([row["gap_p"] < 0.05 for row in rows])
        lines.append(
            f"| {network} | {mean['auroc']:.3f} | {100 * mean['held'] / mean['classes']:.0f} | {mean['missed']:.1f} | "
            f"{mean['alarms']:.1f} | {told:.0f} | {mean['recall_at_1']:.4f} | {mean['chance']:.4f} |"
        )
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


_REST = ("labels", "class_names", "task", "names", "patients", "groups")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
