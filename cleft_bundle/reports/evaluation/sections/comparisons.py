"""This evaluation beside others, and what the words of the prompts change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cleft_bundle.metrics import p_text
from cleft_bundle.reports.evaluation.sections.parts import (
    TITLES,
    bare,
    better,
    interval,
    row,
    section,
    table,
    text_cell,
)

_OVERALL = (
    *("auroc_macro", "average_precision_macro", "accuracy", "balanced_accuracy", "sensitivity_macro"),
    *("specificity_macro", "brier_macro", "brier"),
)
_SPREAD = ("mean", "sd", "low", "high")


def comparisons(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A section for each other evaluation."""
    columns = [content["evaluated_as"], "the other", "difference", "p", "p, Holm"]
    sections = []
    for other in content["comparisons"]:
        rows = [
            row(title, _estimates(estimate), note=better(name))
            for name, title in _compared(content)
            if (estimate := other["metrics"].get(name))
        ]
        tests = [row(name, [_signed(found), *_levels(found)]) for name, found in other["delong"].items()]
        text = [
            "The same images, and the same resamples of patients for both; figures that need a threshold are at each "
            "one's own. p is for no difference, of each row alone; p, Holm, holds for all rows of the table together.",
        ]
        tables = [table(columns, rows, first="by resampling patients")]
        if tests:
            tables.append(table(["difference of AUROC", "p", "p, Holm"], tests, first="DeLong's test"))
        sections.append(section(f"Compared with {other['name']}", text, tables=tables))
    return sections


def _estimates(estimate: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [bare(estimate["first"]), bare(estimate["second"]), _signed(estimate), *_levels(estimate)]


def _levels(estimate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A p-value, and the same adjusted."""
    given = (math.nan if estimate[key] is None else estimate[key] for key in ("p_value", "holm"))
    return [text_cell(p_text(value, estimate["p_is_bound"])) for value in given]


def _signed(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return text_cell(f"{estimate['value']:+.3f}", interval(estimate))


def _compared(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names of the metrics that comparisons show, and their titles."""
    named = [(name, TITLES[name.removesuffix("_macro")]) for name in _OVERALL if name in content["metrics"]]
    return named + [(f"auroc/{name}", f"AUROC, {name}") for name in content["classes"]]


def prompts(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Section on how far figures move between variants of the prompts."""
    found = content["prompt_sensitivity"]
    if found is None:
        return []
    rows = [
        row(
            title, [bare(content["metrics"][name]["value"]), *(bare(spread[key]) for key in _SPREAD)], note=better(name)
        )
        for name, title in _compared(content)
        if (spread := found["metrics"].get(name)) and name in content["metrics"]
    ]
    text = (
        f"All prompts of a class together, against {len(found['prompts'])} variants of one prompt per class: the first "
        "of each, the second, and so on, without calibration."
    )
    columns = ["all prompts", "mean of the variants", "standard deviation", "lowest", "highest"]
    return [section("What the words of the prompts change", text, tables=[table(columns, rows)])]
