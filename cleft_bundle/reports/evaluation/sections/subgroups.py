"""The operating point for kinds of patients and images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cleft_bundle.metrics import p_text
from cleft_bundle.metrics.classification import OBSERVED_EXPECTED
from cleft_bundle.reports.evaluation.sections.parts import (
    TITLES,
    bar,
    bare,
    better,
    cell,
    row,
    section,
    table,
    text_cell,
)

_METRICS = ("auroc", "sensitivity", "specificity", "brier")
_MOST = 6  # classes of the table of calibration


def sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The section of subgroups; none where no group is known."""
    metrics = [name for name in _METRICS if _key(content, name)]
    rows: list[dict[str, Any]] = []
    whole = content["metrics"].get("auroc_macro", {}).get("value")
    for group, found in content["subgroups"].items():
        title = group.replace("_", " ")
        cells = [text_cell("")] * (len(metrics) + 2)
        rows.append(row(title, cells, heading=True))
        for value, estimates in found["values"].items():
            rows.append(_value(value, estimates, metrics, content, whole))
        if found["n_unknown"]:
            rows.append(row("not known", [text_cell(f"{found['n_unknown']:,} images"), *cells[1:]]))
    if not rows:
        return []
    text = [
        "At the operating point, means of the classes. A figure without a range, its dot hollow, has too few patients "
        "for an interval; report.json has the figures of each class.",
    ]
    columns = ["images", "AUROC, 0 to 1", *(TITLES[name] for name in metrics)]
    hints = ["patients", "line: all images", *(better(name) for name in metrics)]
    tables = [table(columns, rows, hints=hints), *_gaps(content, metrics), *_calibration(content)]
    return [section("Kinds of patients and images", text, tables=tables)]


def _gaps(content: Mapping[str, Any], metrics: list[str]) -> list[dict[str, Any]]:
    """Best and worst of each group, and how far they lie apart."""
    rows: list[dict[str, Any]] = []
    for group, found in content["subgroups"].items():
        own = [row(group.replace("_", " "), [text_cell("")] * 4, heading=True)]
        for name in metrics:
            if gap := found["gaps"].get(_key(content, name)):
                difference, level = gap["difference"], gap["p_corrected"]
                told = p_text(math.nan if level is None else level, difference["p_is_bound"])
                own.append(row(TITLES[name], [text_cell(gap["best"]), text_cell(gap["worst"]), cell(difference),
                                              text_cell(told)]))  # fmt: skip
        rows += own if len(own) > 1 else []
    if not rows:
        return []
    note = (
        "Best and worst were picked from these very images, so that gaps tend to look too large. p is for no "
        "difference, multiplied by the number of pairs that could have been picked."
    )
    columns = ["best", "worst", "difference", "p"]
    return [table(columns, rows, title="Largest gaps", note=note)]


def _calibration(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Observed over expected positives of each class; of many classes the most frequent ones."""
    classes = content["classes"]
    kept = sorted(classes, key=lambda name: classes[name]["positive"], reverse=True)[:_MOST]
    names = [name for name in classes if name in kept]
    rows: list[dict[str, Any]] = []
    for group, found in content["subgroups"].items():
        own = [row(group.replace("_", " "), [text_cell("")] * len(names), heading=True)]
        for value, estimates in found["values"].items():
            cells = [cell(estimates.get(f"{OBSERVED_EXPECTED}/{name}"), ".2f") for name in names]
            if any(one["text"] != "-" for one in cells):
                own.append(row(value, cells))
        rows += own if len(own) > 1 else []
    if not rows:
        return []
    note = "" if len(names) == len(classes) else f"Of {len(classes)} classes the most frequent {len(names)}."
    title = "Calibration: positive images observed, by those that the scores expect"
    return [table(names, rows, title=title, note=note, hints=["right: 1"] * len(names))]


def _key(content: Mapping[str, Any], name: str) -> str:
    """The mean over classes of a metric, or the one number that a multiclass task has; empty where there is neither."""
    return next((key for key in (f"{name}_macro", name) if key in content["metrics"]), "")


def _value(
    value: str, estimates: Mapping[str, Any], metrics: list[str], content: Mapping[str, Any], whole: float | None
) -> dict[str, Any]:
    found = {name: estimates.get(_key(content, name)) for name in metrics}
    counted = next((one for one in found.values() if one is not None), None)
    images = (
        text_cell("-")
        if counted is None
        else text_cell(f"{counted['n_images']:,}", f"{counted['n_patients']:,} patients")
    )
    drawn = bar(found["auroc"], whole) if found.get("auroc") else bare(None)
    return row(value, [images, drawn, *(cell(found[name]) for name in metrics)])
