"""The pictures of an evaluation report, each drawn on a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from cleft_bundle.handlers.plots import MANY, named_curves, shown_name, thin_curve
from cleft_bundle.metrics import Predictions

BLUE, ORANGE = "#3b6ea5", "#e08a2e"


def roc_curves(figure: Figure, predictions: Predictions, limits: Mapping[str, float]) -> None:
    """ROC curves, one per class, with a dot at its threshold.

    Of more than 25 classes those with the lowest and the highest AUROCs are in colour and named, the others in grey.

    Args:
        figure: what is drawn on.
        predictions: of the images; classes without positive or without negative ones are left out.
        limits: names of classes to thresholds.
    """
    axes = _square(figure, "1 - specificity", "sensitivity")
    for name, labels, scores, style, kept in _drawn(predictions):
        across, up, cuts = roc_curve(labels, scores, drop_intermediate=False)
        axes.plot(*thin_curve(across, up), label=shown_name(name) if kept else None, **style)
        if kept and name in limits and limits[name] > 0:
            place = int(np.searchsorted(-cuts, -limits[name], side="right")) - 1
            axes.plot(across[place], up[place], "o", color=style["color"], markersize=4.5)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
    _legend(figure, axes)


def recall_curves(figure: Figure, predictions: Predictions) -> None:
    """Precision over recall, see :func:`roc_curves`."""
    axes = _square(figure, "recall (sensitivity)", "precision (PPV)")
    for name, labels, scores, style, kept in _drawn(predictions):
        precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
        curve = thin_curve(recall[::-1], precision[::-1])
        axes.plot(*curve, drawstyle="steps-pre", label=shown_name(name) if kept else None, **style)
        if kept:
            axes.axhline(labels.mean(), color=style["color"], linewidth=0.6, linestyle=":")
    _legend(figure, axes)


def _drawn(predictions: Predictions) -> list[tuple[str, np.ndarray, np.ndarray, dict[str, Any], bool]]:
    """Of each class with two sides: name, known labels, their scores, style, and whether it is named."""
    found = []
    for number, name in enumerate(predictions.class_names):
        labels, scores = predictions.labels[:, number], predictions.scores[:, number]
        known = ~np.isnan(labels)
        if len(np.unique(labels[known])) == 2:
            area = auc(*roc_curve(labels[known], scores[known])[:2])
            found.append((area, number, name, labels[known], scores[known]))
    grey = {"color": "0.8", "linewidth": 0.6, "zorder": 1.5}
    return [
        (name, labels, scores, _style(number) if kept else grey, kept)
        for kept, (_, number, name, labels, scores) in zip(named_curves(found), found, strict=True)
    ]


def _square(figure: Figure, across: str, up: str) -> Any:
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    return axes


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = _columns(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5)


def _columns(names: Sequence[str]) -> int:
    return 2 if max(map(len, names), default=0) < 30 else 1


def curve_size(class_names: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of a picture of curves whose legend names the classes."""
    named = (
        [shown_name(name) for name in class_names]
        if len(class_names) <= MANY
        else [shown_name(name) for name in class_names[:6]]
    )
    return 4.7, 3.9 + 0.17 * -(-len(named) // _columns(named))


def _style(number: int) -> dict[str, Any]:
    return {"color": _colour(number), "linestyle": "-" if number < 10 else "--", "linewidth": 1.6}


def _colour(number: int) -> Any:
    return mpl.colormaps["tab10"](number % 10)


def reliability_diagram(
    figure: Figure, diagram: Mapping[str, Any], line: tuple[float | None, float | None] | None = None
) -> None:
    """A reliability diagram.

    Args:
        figure: what is drawn on.
        diagram: ``probability``, ``frequency`` and ``count`` of the bins.
        line: slope and intercept of the calibration line, on the scale of log odds; None: it is not drawn.
    """
    axes = figure.subplots()
    kept = [place for place, count in enumerate(diagram["count"]) if count]
    probability, frequency, count = (
        np.array([diagram[key][place] for place in kept]) for key in ("probability", "frequency", "count")
    )
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
    if line is not None and line[0] is not None and line[1] is not None:
        across = np.linspace(0.005, 0.995, 100)
        odds = np.clip(line[1] + line[0] * np.log(across / (1 - across)), -50, 50)
        axes.plot(across, 1 / (1 + np.exp(-odds)), color=ORANGE, linewidth=1.2)
    axes.scatter(probability, frequency, s=12 + 160 * count / count.sum(), color=BLUE, alpha=0.85, linewidths=0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_aspect("equal")
    axes.set_xlabel("score given")
    axes.set_ylabel("share that has the class")


def histogram(figure: Figure, scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> None:
    """Scores of the images with a class, upwards, and of those without it, downwards, each as shares of its own.

    Args:
        figure: what is drawn on.
        scores: float [N].
        labels: float [N] of 1, 0 and NaN (unknown, left out).
        threshold: marked by a line, where there is one.
    """
    axes = figure.subplots()
    known = scores[~np.isnan(labels)]
    low, high = (0.0, 1.0) if known.min() >= 0 and known.max() <= 1 else (known.min(), known.max())
    edges = np.linspace(low, high if high > low else low + 1, 31)
    for side, sign, colour in ((1, 1, ORANGE), (0, -1, BLUE)):
        own = scores[labels == side]
        heights = np.histogram(own, edges)[0] / max(len(own), 1)
        label = f"{'with' if side else 'without'} it, n = {len(own):,}"
        axes.stairs(sign * heights, edges, fill=True, color=colour, label=label)
    axes.axhline(0, color="0.3", linewidth=0.7)
    if threshold is not None:
        axes.axvline(threshold, color="0.2", linestyle="--", linewidth=0.9)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("score")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=7)


def decision_curve(figure: Figure, curve: Mapping[str, Any], threshold: float | None) -> None:
    """Net benefit over the threshold probability.

    Args:
        figure: what is drawn on.
        curve: ``threshold``, ``net_benefit`` and ``treat_all``, lists.
        threshold: marked by a line, where there is one.
    """
    axes = figure.subplots()
    across = np.array(curve["threshold"], dtype=float)
    own, everyone = (np.array(curve[key], dtype=float) for key in ("net_benefit", "treat_all"))
    axes.axhline(0, color="0.6", linewidth=0.9)
    axes.plot(across, everyone, color="0.7", linewidth=1.2)
    axes.plot(across, own, color=BLUE, linewidth=1.6)
    top = max(float(np.nanmax(own)), float(np.nanmax(everyone)), 0.01)
    axes.set_ylim(-0.4 * top, 1.1 * top)
    if threshold is not None:
        axes.axvline(threshold, color="0.2", linestyle="--", linewidth=0.9)
    axes.set_xlabel("threshold probability")
    axes.set_ylabel("net benefit")
