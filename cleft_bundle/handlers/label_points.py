"""The points of a label-efficiency comparison: what they are, their spread over seeds, their table and picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cleft_bundle.handlers.plots import PLAIN
from cleft_bundle.metrics import Interval
from cleft_bundle.networks.peft_methods import resolve_peft

SHOWN = "auroc_macro"
COLOURS = {"cleft": "C0", "backbone": "C1", "random": "0.45"}
SPREAD = 1.05  # factor between neighbouring points of one fraction, so that their intervals stay apart
_STYLES = ("-", "--", ":")
_MARKERS = "os^"
_NAMED = 8  # digits of a checkpoint's SHA-256 in tables and legends


@dataclass(frozen=True)
class Point:
    """One method from one source on one fraction of the labels, by one set of seeds.

    Args:
        method: such as ``linear probe``.
        source: where the image tower came from: ``cleft``, ``backbone`` or ``random``.
        fraction: share of the training patients.
        train_images: number of training images.
        train_patients: number of their patients.
        estimates: metrics of the evaluated split.
        settings: what else is worth keeping, such as the ``C`` that was chosen.
        seeds: ``seed`` (of weights and order), ``subset_seed`` and ``split_seed``.
    """

    method: str
    source: str
    fraction: float
    train_images: int
    train_patients: int
    estimates: Mapping[str, Interval]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)

    @property
    def line(self) -> tuple[str, str, str]:
        """Key that points of one line share: method, source, and the checkpoint that the source came from."""
        return self.method, self.source, str(self.settings.get("checkpoint", ""))

    @property
    def key(self) -> tuple[object, ...]:
        """Key that tells it from other points of a comparison."""
        return *self.line, self.fraction, *sorted(self.seeds.items())


def point_name(
    source: str, fraction: float, seed: int, subset_seed: int, split_seed: int, image_peft: Any = "full"
) -> str:
    """Name of the folder of one fine-tuning, which no other source, fraction, seed or method of adaptation shares."""
    method = resolve_peft(image_peft).name
    ends = "" if method == "full" else f"_{method}"
    return f"{source}_{float(fraction)!r}_seed{seed}_subset{subset_seed}_split{split_seed}{ends}"


def over_seeds(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Gather the points that differ by their seeds alone.

    Args:
        points: of one comparison.

    Returns:
        one dictionary for each method, source, checkpoint and fraction: these, ``seeds`` (number of points) and
        ``estimates``: for each metric ``mean``, ``sd`` (of the sample; None for a single seed), ``low`` and ``high``
        (the least and the most of a seed) and ``seeds``, those in which the metric is defined.
    """
    rows = []
    for (line, fraction), group in _groups(points).items():
        names = dict.fromkeys(name for point in group for name in point.estimates)
        estimates = {
            name: _spread([point.estimates[name].value for point in group if name in point.estimates]) for name in names
        }
        method, source, checkpoint = line
        rows.append(
            {"method": method, "source": source, "checkpoint": checkpoint, "fraction": fraction, "seeds": len(group)}
            | {"estimates": estimates}
        )
    return rows


def table(points: Sequence[Point], share: str) -> list[str]:
    """The points as lines of a table, those of several seeds as one line.

    Args:
        points: of one comparison, sorted.
        share: of the intervals, such as "95 %".
    """
    several = _several_checkpoints(points)
    lines = [f"  {'method':<14} {'source':<19} {'labels':>7} {'images':>9}  macro AUROC ({share} interval)"]
    for (line, fraction), group in _groups(points).items():
        labels = f"{100 * fraction:.4g} %"
        lines.append(f"  {line[0]:<14} {_source(line, several):<19} {labels:>7} {_sizes(group):>9}  {_shown(group)}")
    return lines


@mpl.rc_context(PLAIN)
def label_efficiency_figure(points: Sequence[Point], title: str, confidence: float = 0.95) -> Figure:
    """Draw the macro AUROC over the share of the labels, one line for each method, source and checkpoint.

    A point of one seed has its interval by patient. Points of several seeds are drawn small, and the line goes through
    their mean, with a bar of one standard deviation.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = list(dict.fromkeys(point.line for point in points))
    several = _several_checkpoints(points)
    for number, line in enumerate(lines):
        row = [point for point in points if point.line == line and SHOWN in point.estimates]
        if row:
            _draw_line(axes, row, lines, several, SPREAD ** (number - (len(lines) - 1) / 2))
    axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    shares = sorted({point.fraction for point in points})
    images = [_sizes([point for point in points if point.fraction == share]) for share in shares]
    axes.set_xticks(
        shares, [f"{100 * share:.4g} %\n{count} images" for share, count in zip(shares, images, strict=True)]
    )
    axes.minorticks_off()
    axes.set_xlabel("labels of the training split")
    seeds = max((len(group) for group in _groups(points).values()), default=1)
    bars = f"{100 * confidence:.4g} % interval by patient"
    axes.set_ylabel(f"macro AUROC, {bars}" + ("; of several seeds mean and sd" if seeds > 1 else ""))
    axes.grid(axis="y", color="0.92")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="best", frameon=False)
    return figure


def _draw_line(
    axes: Axes, row: Sequence[Point], lines: Sequence[tuple[str, str, str]], several: set[str], spread: float
) -> None:
    line = row[0].line
    methods = list(dict.fromkeys(method for method, _, _ in lines))
    same = [other for other in lines if other[:2] == line[:2]]
    place, colour = methods.index(line[0]), COLOURS[line[1]]
    xs, means, below, above = [], [], [], []
    for (_, fraction), group in _groups(row).items():
        estimates = [point.estimates[SHOWN] for point in group]
        values = [estimate.value for estimate in estimates]
        xs.append(fraction * spread)
        means.append(float(np.mean(values)))
        if len(values) > 1:
            axes.plot([xs[-1]] * len(values), values, ".", color=colour, markersize=3, alpha=0.6)
            below.append(float(np.std(values, ddof=1)))
            above.append(below[-1])
        else:
            low, high = estimates[0].low, estimates[0].high
            below.append(0.0 if math.isnan(low) else max(0.0, values[0] - low))
            above.append(0.0 if math.isnan(high) else max(0.0, high - values[0]))
    seeds = max(len(group) for group in _groups(row).values())
    axes.errorbar(
        xs,
        means,
        yerr=[below, above],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=5,
        capsize=3,
        label=f"{line[0]}, {_source(line, several)}" + (f", {seeds} seeds" if seeds > 1 else ""),
        color=colour,
        linestyle=_STYLES[place % len(_STYLES)],
        linewidth=1.6,
        alpha=1.0 / (1 + same.index(line)),
    )


def _groups(points: Iterable[Point]) -> dict[tuple[tuple[str, str, str], float], list[Point]]:
    """Points that differ by their seeds alone, in the order of the first of each."""
    groups: dict[tuple[tuple[str, str, str], float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.line, point.fraction), []).append(point)
    return groups


def _spread(values: Sequence[float]) -> dict[str, Any]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": None, "sd": None, "low": None, "high": None, "seeds": 0}
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return {"mean": float(np.mean(known)), "sd": sd, "low": min(known), "high": max(known), "seeds": len(known)}


def _several_checkpoints(points: Iterable[Point]) -> set[str]:
    """Sources that came from several checkpoints, whose names are then told."""
    found: dict[str, set[str]] = {}
    for _, source, checkpoint in (point.line for point in points):
        found.setdefault(source, set()).add(checkpoint)
    return {source for source, checkpoints in found.items() if len(checkpoints) > 1}


def _source(line: tuple[str, str, str], several: set[str]) -> str:
    _, source, checkpoint = line
    return f"{source} {checkpoint[:_NAMED] or 'unknown'}" if source in several else source


def _sizes(points: Iterable[Point]) -> str:
    """Numbers of training images, which seeds of the subset can change."""
    counts = sorted({point.train_images for point in points})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _shown(group: Sequence[Point]) -> str:
    estimates = [point.estimates[SHOWN] for point in group if SHOWN in point.estimates]
    if not estimates:
        return "not defined"
    if len(group) > 1:
        spread = _spread([estimate.value for estimate in estimates])
        sd = "" if spread["sd"] is None else f", sd {spread['sd']:.3f}"
        return f"{spread['mean']:.3f}{sd} ({spread['low']:.3f} to {spread['high']:.3f} in {len(estimates)} seeds)"
    estimate = estimates[0]
    return f"{estimate.value:.3f}" + (
        f" ({estimate.low:.3f} to {estimate.high:.3f})" if estimate.is_known else " (too few patients)"
    )
