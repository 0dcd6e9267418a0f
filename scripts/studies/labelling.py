"""Simulation of how fast a classifier learns from a reader's labels, by the strategy that chooses what is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from cleft_bundle.data.epochs import derive_seed
from cleft_bundle.data.subsets import patient_fraction
from cleft_bundle.engines.linear_head import LinearHead, choose_strength, fit_head
from cleft_bundle.engines.linear_probe import as_predictions
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import classification_metrics
from cleft_bundle.metrics.active_learning import STRATEGIES, Strategy, rank_unlabelled
from cleft_bundle.networks import ZeroShotClassifier, probabilities

#: What a simulation measures, and what it is called in a picture.
MEASURES = {"auroc_macro": "macro AUROC", "accuracy": "accuracy"}

_COLOURS = {"entropy": "#3b6ea5", "margin": "#c0602b", "coreset": "#4b8f4b", "random": "0.35"}
_BASELINE = "random"

Item = dict[str, Any]


@dataclass(frozen=True)
class Embedded:
    """Images as the linear head sees them.

    Args:
        items: items of a datalist, with ``name``, ``label`` (all known) and ``patient_id``.
        rows: their embeddings [N, D].
    """

    items: Sequence[Item]
    rows: torch.Tensor


def simulate_labelling(
    classifier: ZeroShotClassifier,
    pool: Embedded,
    test: Embedded,
    strategies: Sequence[Strategy] = STRATEGIES,
    rounds: int = 5,
    labels: int = 20,
    seeds: int = 5,
    pool_fraction: float = 0.5,
) -> pd.DataFrame:
    """Label a pool round by round as a strategy says, and refit the linear head after each round.

    Every seed draws a share of the pool's patients, the same for all strategies. In the first round the strategies
    choose by the classifier as it is, then by the head that was fitted last, as the MONAI Label application does with
    method ``linear``: :func:`fit_head` from the classifier's head, with the strength that cross-validation on the
    labels chooses.

    Args:
        classifier: whose head is the start; its image tower has made the embeddings.
        pool: images to label, of patients whom the classifier was not trained on.
        test: images to measure on, of other patients.
        strategies: which to compare.
        rounds: how often the reader labels.
        labels: how many images each time.
        seeds: how often all is done.
        pool_fraction: share of the pool's patients of a seed.

    Returns:
        one row per strategy, seed and number of labels (0 to ``rounds * labels``), with the :data:`MEASURES` on the
        test images.

    Raises:
        BundleError: where pool and test share a patient, or the pool of a seed is too small.
    """
    if shared := {item["patient_id"] for item in pool.items} & {item["patient_id"] for item in test.items}:
        raise BundleError(f"{len(shared)} patients are in the pool and among those that are measured on")
    place = {item["name"]: number for number, item in enumerate(pool.items)}
    found = []
    for seed in tqdm(range(seeds), desc="labelling", unit="seed"):
        items = patient_fraction(pool.items, pool_fraction, seed)
        if len(items) < rounds * labels:
            raise BundleError(f"a pool of {len(items)} images is too small for {rounds} rounds of {labels} labels")
        part = Embedded(items, pool.rows[[place[item["name"]] for item in items]])
        for strategy in strategies:
            found += [
                {"strategy": strategy, "seed": seed, **row}
                for row in _label(strategy, classifier, part, test, rounds, labels, seed)
            ]
    return pd.DataFrame(found)


def advantages(curves: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Advantage of each strategy over random, in the mean over the rounds of a seed.

    Args:
        curves: what :func:`simulate_labelling` returns, with strategy ``random``.
        measure: one of :data:`MEASURES`.

    Returns:
        one row per strategy: ``mean`` over the seeds, ``low`` and ``high``, the least and the most of a seed, and
        ``seeds_ahead``, in how many it is above 0.
    """
    after = curves[curves["labels"] > 0].pivot_table(index="seed", columns="strategy", values=measure)
    ahead = after.drop(columns=_BASELINE).sub(after[_BASELINE], axis=0)
    return pd.DataFrame(
        {"mean": ahead.mean(), "low": ahead.min(), "high": ahead.max(), "seeds_ahead": (ahead > 0).sum()}
    )


def labelling_figure(curves: pd.DataFrame, title: str) -> Figure:
    """Draw the measures over the number of labels: the mean over seeds of each strategy, and a band of one sd.

    Args:
        curves: what :func:`simulate_labelling` returns.
        title: what the images are.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    seeds = curves["seed"].nunique()
    for axes, (measure, name) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for strategy, rows in curves.groupby("strategy", sort=False):
            columns = rows.groupby("labels")[measure]
            mean, spread = columns.mean(), columns.std(ddof=0)
            style = {"color": _COLOURS[str(strategy)], "linestyle": "--" if strategy == _BASELINE else "-"}
            axes.plot(mean.index, mean, marker="o", markersize=3.5, linewidth=1.6, label=str(strategy), **style)
            axes.fill_between(mean.index, mean - spread, mean + spread, alpha=0.12, color=style["color"], linewidth=0)
        axes.set_xticks(sorted(curves["labels"].unique()))
        axes.set_xlabel("labelled images")
        axes.set_ylabel(f"{name} on test patients")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    figure.axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(f"{title}: mean and standard deviation of {seeds} seeds", fontsize=10)
    return figure


def _label(
    strategy: Strategy,
    classifier: ZeroShotClassifier,
    pool: Embedded,
    test: Embedded,
    rounds: int,
    labels: int,
    seed: int,
) -> list[dict[str, float]]:
    names, patients = ([item[key] for item in pool.items] for key in ("name", "patient_id"))
    truth = torch.tensor([item["label"] for item in pool.items], dtype=torch.float64)
    start, task = LinearHead.of(classifier), classifier.task
    head, labelled = start, np.zeros(len(names), dtype=bool)
    found = [{"labels": 0, **_measure(head, classifier, test)}]
    for number in range(1, rounds + 1):
        scores = probabilities(head.logits(pool.rows), task).numpy()
        chosen, _ = rank_unlabelled(
            strategy, scores, pool.rows.numpy(), labelled, task, names=names, count=labels,
            seed=derive_seed(seed, strategy, number),
        )  # fmt: skip
        labelled[chosen] = True
        rows = np.flatnonzero(labelled).tolist()
        known = pool.rows[rows], truth[rows]
        strength = choose_strength(*known, start, task, [patients[row] for row in rows], seed)
        head = fit_head(*known, start, task, strength)
        found.append({"labels": len(rows), **_measure(head, classifier, test)})
    return found


def _measure(head: LinearHead, classifier: ZeroShotClassifier, test: Embedded) -> dict[str, float]:
    scores = probabilities(head.logits(test.rows), classifier.task).numpy()
    predictions = as_predictions(scores, test.items, classifier.class_names, classifier.task)
    found = classification_metrics(predictions, metrics=["auroc", "accuracy"])
    accuracy = found["accuracy" if classifier.task == "multiclass" else "accuracy_macro"]
    return {"auroc_macro": found["auroc_macro"], "accuracy": accuracy}
