"""The pictures of a data report, each drawn on a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cleft_bundle.names import shorten
from cleft_bundle.reports.describe.counts import UNKNOWN
from cleft_bundle.reports.pages import COLOURS, GREY

MANY = 25  # classes; of more a map gives no numbers and not all names


def class_bars(figure: Figure, counts: Mapping[str, pd.DataFrame]) -> None:
    """Positive images of each class by split, and beside them their share of the images whose label is known."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    filled = {split: table for split, table in counts.items() if len(table) and table.to_numpy().sum()}
    names = list(next(iter(filled.values())).index)
    _stacked(left, pd.DataFrame({split: table["positive"] for split, table in filled.items()}))
    left.set_xlabel("positive images")
    for split, table in filled.items():
        share = table["positive"] / (table["positive"] + table["negative"]).clip(lower=1)
        right.plot(share, range(len(names)), "o", color=COLOURS[split], markersize=6, alpha=0.85, label=split)
    right.set_xlabel("share of the images with a known label")
    right.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    right.set_xlim(0, None)
    right.grid(axis="both", color="0.92")
    right.tick_params(axis="y", length=0)
    right.set_axisbelow(True)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)


def category_bars(figure: Figure, frame: pd.DataFrame, columns: Sequence[str], most: int = 8) -> None:
    """Images of each value of some columns, by split; rare values as "other"."""
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(columns))), columns, strict=True):
        values = frame[name].fillna(UNKNOWN)
        order = list(values.value_counts().index)
        known = [value for value in order if value != UNKNOWN]
        values = values.where(values.isin([*known[:most], UNKNOWN]), "other")
        rows = [*known[:most], *(["other"] if len(known) > most else []), *([UNKNOWN] if UNKNOWN in order else [])]
        table = pd.crosstab(values, frame["split"]).reindex(index=rows, fill_value=0)
        _stacked(axes, table[[split for split in COLOURS if split in table]])
        axes.set_title(name, loc="left", fontweight="bold", fontsize=10)
        axes.set_xlabel("images")


def _stacked(axes: Any, table: pd.DataFrame) -> None:
    """Horizontal bars: a row of the table each, its columns the splits, the total written at the end."""
    start = np.zeros(len(table))
    for split in table:
        axes.barh(range(len(table)), table[split], left=start, color=COLOURS[str(split)], label=split, height=0.7)
        start += table[split].to_numpy()
    for place, total in enumerate(start):
        axes.annotate(f"{int(total):,}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(table)), [shorten(str(name), 34) for name in table.index])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))


def age_bars(figure: Figure, frame: pd.DataFrame) -> None:
    """Histogram of the ages known, by split."""
    axes = figure.subplots()
    known = frame.dropna(subset=["age"])
    splits = [split for split in COLOURS if (known["split"] == split).any()]
    youngest, oldest = known["age"].min(), known["age"].max()
    width = 5 if oldest > 25 else 1  # years; children are told apart more finely
    edges = np.arange(width * (youngest // width), oldest + width + 0.01, width)
    axes.hist(
        [known.loc[known["split"] == split, "age"] for split in splits],
        bins=edges.tolist(),
        stacked=True,
        color=[COLOURS[split] for split in splits],
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set_xlabel("years")
    axes.set_ylabel("images")


def cooccurrence_map(figure: Figure, matrix: np.ndarray, classes: Sequence[str]) -> None:
    """Number of images that have both of two classes; shade: share of the row's images."""
    axes = figure.subplots()
    share = matrix / np.maximum(np.diag(matrix)[:, None], 1)
    shown = axes.imshow(np.where(np.eye(len(matrix), dtype=bool), np.nan, share), cmap="Blues", vmin=0)
    dark = 0.6 * max(shown.get_clim()[1], 1e-9)
    for (row, column), count in np.ndenumerate(matrix if len(matrix) <= MANY else np.empty((0, 0))):
        colour = "0.45" if row == column else "w" if share[row, column] > dark else "k"
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=colour)
    places = range(0, len(classes), -(-len(classes) // MANY))
    names = [shorten(classes[place], 28) for place in places]
    axes.set_xticks(places, names, rotation=40, ha="right")
    axes.set_yticks(places, names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, label="share of the row's images")
    bar.locator = mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
    bar.ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    bar.outline.set_visible(False)


def token_bars(figure: Figure, frequency: pd.Series, lengths: pd.Series, limit: int) -> None:
    """Captions by their number of tokens; those above the limit are cut."""
    axes = figure.subplots()
    top = int(max(lengths.max(), limit)) + 1
    edges = np.arange(0, top + 1, max(1, top // 60)) - 0.5
    edges = np.append(edges, edges[-1] + max(1, top // 60))
    short = lengths <= limit
    axes.hist(
        [lengths[short], lengths[~short]],
        bins=edges.tolist(),
        weights=[frequency[short], frequency[~short]],
        stacked=True,
        color=[COLOURS["train"], "#c0392b"],
    )
    axes.axvline(limit + 0.5, color="#c0392b", linestyle="--", linewidth=1)
    axes.annotate(f"room for {limit}", (limit + 0.5, 0.97), (-4, 0), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="right", va="top", color="#c0392b")  # fmt: skip
    axes.set_xlabel("tokens of a caption, without its EOS")
    axes.set_ylabel("captions of images")


def batch_bars(figure: Figure, distinct: np.ndarray, batch_size: int) -> None:
    """Batches by their number of distinct captions, and the mean."""
    axes = figure.subplots()
    values, counts = np.unique(distinct, return_counts=True)
    axes.bar(values, counts, color=COLOURS["train"], width=0.85)
    axes.axvline(distinct.mean(), color="k", linestyle="--", linewidth=1)
    axes.annotate(f"mean {distinct.mean():.1f}", (1, 1), xycoords="axes fraction", ha="right", va="top")
    axes.set_xlim(0, batch_size + 1)
    axes.set_xlabel(f"distinct captions in a batch of {batch_size}")
    axes.set_ylabel("batches")
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))


def caption_bars(figure: Figure, frequency: pd.Series, most: int = 10) -> None:
    """The most frequent captions, and all others together."""
    axes = figure.subplots()
    shown = frequency.iloc[:most]
    rest = frequency.iloc[most:]
    names = [shorten(text, 95) for text in shown.index]
    counts = list(shown)
    if len(rest):
        names.append(f"{len(rest):,} other captions")
        counts.append(rest.sum())
    colours = [COLOURS["train"]] * len(shown) + [GREY]
    axes.barh(range(len(counts)), counts, color=colours[: len(counts)], height=0.7)
    for place, count in enumerate(counts):
        axes.annotate(f"{count:,}", (count, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("captions of images")
