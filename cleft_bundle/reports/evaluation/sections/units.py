"""The same figures for patients, studies and breasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.reports.evaluation.sections.parts import TITLES, better, cell, row, section, table, text_cell

_METRICS = ("auroc", "sensitivity", "specificity")
_MANY = 25


def sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The section of units; none where no unit has several images."""
    units = content["units"]
    if not units:
        return []
    how = {"max": "the highest", "mean": "the mean"}[content["unit_score"]]
    tables = []
    for name, found in units.items():
        rows = [_row("mean of the classes", found["metrics"], content["metrics"], "_macro", found["count"])]
        classes = list(content["classes"])[:_MANY]
        rows += [_row(label, found["metrics"], content["metrics"], f"/{label}", found["count"]) for label in classes]
        columns = [f"{TITLES[metric]}, {who}" for metric in _METRICS for who in (f"by {name}", "by image")]
        hints = [better(metric) for metric in _METRICS for _ in range(2)]
        tables.append(
            table(columns, rows, title=f"By {name}: {found['count']:,} with {found['images']:,} images", hints=hints)
        )
    text = (
        f"A unit's score is {how} of its images; it has a class where any of its images has. At the same operating "
        "point as the images."
    )
    return [section("By patient, study and breast", text, tables=tables)]


def _row(name: str, unit: Mapping[str, Any], image: Mapping[str, Any], mark: str, count: int) -> dict[str, Any]:
    cells = [cell(found.get(f"{metric}{mark}")) for metric in _METRICS for found in (unit, image)]
    return row(name, cells or [text_cell(f"{count:,}")])
