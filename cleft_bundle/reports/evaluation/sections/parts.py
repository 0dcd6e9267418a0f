"""Parts that sections are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Names of metrics as people read them.
TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision (PPV)",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "ECE",
    "observed_expected": "observed / expected",
}
_LOWER = ("brier", "ece")
LONGEST_TITLE = 60  # characters of a class's name over a small picture


def title_of(metric: str) -> str:
    """The name of a metric, or of the mean over classes, as people read it."""
    return TITLES[metric.removesuffix("_macro")]


def better(metric: str) -> str:
    """Direction in which a metric is better, in words."""
    plain = metric.partition("/")[0].removesuffix("_macro")
    if plain == "observed_expected":
        return "right: 1"
    return "lower is better" if plain in _LOWER else "higher is better"


def section(
    title: str,
    text: str | Sequence[str] = (),
    pictures: Sequence[Mapping[str, Any]] = (),
    tables: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A section of the page: ``id``, ``title``, ``text`` (paragraphs), ``pictures`` and ``tables``."""
    paragraphs = [text] if isinstance(text, str) else list(text)
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return {
        "id": name,
        "title": title,
        "text": [one for one in paragraphs if one],
        "pictures": list(pictures),
        "tables": list(tables),
    }


def picture(title: str, uri: str, note: str = "", size: str = "half") -> dict[str, Any]:
    """A picture; ``size`` is ``full``, ``half`` or ``small`` of the page's width."""
    return {"title": title, "uri": uri, "note": note, "size": size}


def table(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    title: str = "",
    note: str = "",
    first: str = "",
    hints: Sequence[str] = (),
    facts: bool = False,
) -> dict[str, Any]:
    """A table of ``rows`` (see :func:`row`); ``first`` heads their names, ``hints`` stand small below the columns.

    A table of ``facts`` has texts in place of numbers, and no head.
    """
    pairs = list(zip(columns, [*hints, *[""] * (len(columns) - len(hints))], strict=True))
    return {"columns": pairs, "rows": list(rows), "title": title, "note": note, "first": first, "facts": facts}


def row(
    name: str, cells: Sequence[Mapping[str, Any]], note: str = "", heading: bool = False, total: bool = False
) -> dict[str, Any]:
    """A row of a table: a heading stands over the rows that follow, a total below those above."""
    return {"name": name, "cells": list(cells), "note": note, "heading": heading, "total": total}


def text_cell(text: str, note: str = "") -> dict[str, Any]:
    """A cell of plain text, and a smaller one below it."""
    return {"text": text, "range": note, "bar": None}


def bare(value: float | None, form: str = ".3f") -> dict[str, Any]:
    """A number without an interval; None is a dash."""
    return text_cell("-" if value is None else format(value, form))


def cell(estimate: Mapping[str, Any] | None, form: str = ".3f") -> dict[str, Any]:
    """A figure and its interval, without one where there is none; None is a dash."""
    if estimate is None or estimate["value"] is None:
        return bare(None)
    return text_cell(format(estimate["value"], form), interval(estimate, form))


def interval(estimate: Mapping[str, Any], form: str = ".3f") -> str:
    """The bounds of a figure as text, or nothing."""
    return "" if estimate["low"] is None else f"{estimate['low']:{form}} to {estimate['high']:{form}}"


def bar(estimate: Mapping[str, Any] | None, reference: float | None = None, lowest: float = 0.0) -> dict[str, Any]:
    """A figure between ``lowest`` and 1 drawn as a dot on a line, with its interval; hollow where there is none.

    Args:
        estimate: ``value``, ``low`` and ``high``.
        reference: a value marked by a stroke.
        lowest: what stands at the left end.
    """
    if estimate is None or estimate["value"] is None:
        return bare(None)

    def place(value: float) -> float:
        return round(100 * min(max((value - lowest) / (1 - lowest), 0.0), 1.0), 2)

    known = estimate["low"] is not None
    low, high = (place(estimate["low"]), place(estimate["high"])) if known else (0.0, 0.0)
    drawn = {
        "dot": place(estimate["value"]),
        "left": low,
        "width": round(high - low, 2),
        "known": known,
        "reference": None if reference is None else place(reference),
    }
    return {"text": "", "range": "", "bar": drawn}
