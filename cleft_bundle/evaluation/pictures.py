"""The pictures of an evaluation report, each drawn on a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from cleft_bundle.handlers.plots import named_curves, shown_name, thin_curve
from cleft_bundle.metrics import Predictions
from cleft_bundle.pages import shorten

BLUE = "#3b6ea5"


def curves(figure: Figure, predictions: Predictions) -> None:
    """ROC and precision-recall curves, one a class, for classes with positive and negative images.

    Of more than 25 classes those with the lowest and the highest AUROCs are in colour and named, the others in grey.
    """
    left, right = figure.subplots(1, 2)
    drawn = []
    for number, name in enumerate(predictions.class_names):
        labels, scores = predictions.labels[:, number], predictions.scores[:, number]
        known = ~np.isnan(labels)
        if len(np.unique(labels[known])) == 2:
            roc = roc_curve(labels[known], scores[known])[:2]
            drawn.append((auc(*roc), number, name, roc, labels[known], scores[known]))
    for kept, (_, number, name, roc, labels, scores) in zip(named_curves(drawn), drawn, strict=True):
        style = _style(number) if kept else {"color": "0.8", "linewidth": 0.6, "zorder": 1.5}
        label = {"label": shown_name(name)} if kept else {}
        left.plot(*thin_curve(*roc), **label, **style)
        precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
        right.plot(*thin_curve(recall[::-1], precision[::-1]), drawstyle="steps-pre", **style)
        if kept:
            right.axhline(labels.mean(), color=style["color"], linewidth=0.6, linestyle=":")
    left.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
    for axes, title, across, up in (
        (left, "ROC", "1 - specificity", "sensitivity"),
        (right, "Precision and recall", "recall (sensitivity)", "precision (PPV)"),
    ):
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.grid(color="0.93")
        axes.set_axisbelow(True)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _style(number: int) -> dict[str, Any]:
    return {"color": _colour(number), "linestyle": "-" if number < 10 else "--", "linewidth": 1.6}


def _colour(number: int) -> Any:
    return mpl.colormaps["tab10"](number % 10)


def forest(figure: Figure, rows: Sequence[Mapping[str, Any]], label: str, reference: float | None = None) -> None:
    """Figures with their intervals, one below the other.

    Args:
        figure: what is drawn on.
        rows: ``name``, ``value``, ``low`` and ``high`` (None where there is no interval), and ``note`` at the right. A
            row without ``value`` is a heading.
        label: what the figures are.
        reference: a value marked by a line.
    """
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if row.get("value") is None:
            continue
        known = row["low"] is not None
        if known:
            axes.plot([row["low"], row["high"]], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(row["value"], place, "o", color=BLUE if known else "none", markeredgecolor=BLUE, markersize=6)
        axes.annotate(row["note"], (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8,
                      color="0.35", annotation_clip=False)  # fmt: skip
    if reference is not None:
        axes.axvline(reference, color="0.5", linestyle="--", linewidth=0.9)
    axes.set_yticks(range(len(rows)), [shorten(row["name"], 40) for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("normal" if "value" in row else "bold")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.margins(x=0.04)


def reliability_diagrams(figure: Figure, rows: Sequence[tuple[str, Mapping[str, Any]]], across: int) -> None:
    """Reliability diagrams: pairs of a title and ``probability``, ``frequency`` and ``count`` of the bins."""
    panels = figure.subplots(-(-len(rows) // across), across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (title, diagram) in zip(panels, rows, strict=False):
        kept = [place for place, count in enumerate(diagram["count"]) if count]
        probability, frequency, count = (
            np.array([diagram[key][place] for place in kept]) for key in ("probability", "frequency", "count")
        )
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
        axes.plot(probability, frequency, color=BLUE, linewidth=1, alpha=0.6)
        axes.scatter(probability, frequency, s=12 + 160 * count / count.sum(), color=BLUE, alpha=0.85, linewidths=0)
        axes.set_title(shorten(title, 34), loc="left", fontsize=9)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("probability given", fontsize=9)
    figure.supylabel("share that has the class", fontsize=9)
