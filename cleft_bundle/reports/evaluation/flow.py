"""The flow of participants: which images and patients a report is about, and the table of who they are.

Source: Collins et al., "TRIPOD+AI statement", BMJ 2024, items 20a and 20b; Mongan et al., "CLAIM", 2020 (update 2024).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.data.tolerant_dataset import BLANK
from cleft_bundle.data.usable_labels import label_matrix
from cleft_bundle.errors import one_line
from cleft_bundle.reports.evaluation.scored import ScoredImages, group_of

#: What is told of the people and images of each split, where any item knows it.
DETAILS = ("sex", "view", "laterality", "density", "race", "ethnicity", "manufacturer", "presentation_intent")
_REASONS = 10  # texts of errors that are told apart; the others are counted together
_CLASSES = 25
_VALUES = 12  # of a detail; rarer ones are counted together


def flow(scored: ScoredImages) -> dict[str, Any]:
    """Count images and patients from what there was to what is reported.

    Returns:
        ``listed``, ``evaluated``, ``without_labels`` (evaluated, but no label is known) and ``some_unknown`` (some is
        not): ``images`` and ``patients``; ``unknown``: by class the same of the evaluated images whose label for it is
        not known, which are in none of its figures (classes of which all are known are absent); ``excluded``: a list of
        ``reason``, ``images`` and ``patients`` (None where unknown) of what was left out before and of images without
        an answer. No reason names a file.
    """
    dropped: dict[str, list[Item]] = {}
    for item, error, kept in zip(scored.items, scored.errors, scored.scored, strict=True):
        if not kept:
            dropped.setdefault(_reason(error, item), []).append(item)
    ordered = sorted(dropped.items(), key=lambda pair: -len(pair[1]))
    if len(ordered) > _REASONS:
        rest = [item for _, items in ordered[_REASONS - 1 :] for item in items]
        ordered = [*ordered[: _REASONS - 1], ("other reasons", rest)]
    before = [{"reason": reason, **counts} for reason, counts in scored.left_out.items()]
    unknown = np.isnan(scored.labels) & scored.scored[:, None]
    return {
        "listed": counted(scored.items),
        "excluded": [*before, *({"reason": reason, **counted(items)} for reason, items in ordered)],
        "evaluated": counted(scored.scored_items),
        "without_labels": counted(_where(scored, unknown.all(axis=1))),
        "some_unknown": counted(_where(scored, unknown.any(axis=1) & ~unknown.all(axis=1))),
        "unknown": {
            name: counted(_where(scored, column))
            for name, column in zip(scored.class_names, unknown.T, strict=True)
            if column.any()
        },
    }


def _where(scored: ScoredImages, rows: np.ndarray) -> list[Item]:
    return [item for item, one in zip(scored.items, rows, strict=True) if one]


def counted(items: Sequence[Item]) -> dict[str, int]:
    """Numbers of ``images`` and ``patients``."""
    return {"images": len(items), "patients": len({item["patient_id"] for item in items})}


def _reason(error: str, item: Item) -> str:
    """Why an image has no answer, without what names it."""
    if not error or error == BLANK:
        return "blank: all pixels have one grey" if error else "the score is not a finite number"
    text = one_line(error, None)
    names = {str(item.get(key, "")) for key in ("image", "path", "name")}
    names |= {PurePath(name).name for name in names}
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = text.replace(name, "the file")
    return text.removeprefix("the file: ")[:160]


def table_one(cohorts: Mapping[str, Sequence[Item]], class_names: Sequence[str]) -> dict[str, Any]:
    """Describe the images and patients of each split.

    Args:
        cohorts: names of splits to their items, with ``label`` in the order of the classes.
        class_names: names of the classes.

    Returns:
        ``columns``: names of the splits that hold images; ``rows``: a list of ``name``, ``cells`` (one text per split)
        and ``heading`` (whether it begins a block).
    """
    shown = {name: list(items) for name, items in cohorts.items() if items}
    rows = [
        _row("images", [f"{len(items):,}" for items in shown.values()]),
        _row("patients", [f"{counted(items)['patients']:,}" for items in shown.values()]),
    ]
    ages = [np.array([age for item in items if (age := _age(item)) is not None]) for items in shown.values()]
    if any(len(one) for one in ages):
        rows.append(_row("age in years, median (quartiles)", [_quartiles(one) for one in ages]))
        rows.append(
            _row("age, lowest to highest", [f"{one.min():g} to {one.max():g}" if len(one) else "-" for one in ages])
        )
        missing = [len(items) - len(one) for items, one in zip(shown.values(), ages, strict=True)]
        rows += [_row("age not known", [f"{count:,}" for count in missing])] if any(missing) else []
    for key in DETAILS:
        rows += _detail(key, shown)
    rows += _classes(shown, class_names)
    return {"columns": list(shown), "rows": rows}


def _row(name: str, cells: Sequence[str], heading: bool = False) -> dict[str, Any]:
    return {"name": name, "cells": list(cells), "heading": heading}


def _age(item: Item) -> float | None:
    age = item.get("age")
    return None if age is None or math.isnan(age) else float(age)


def _quartiles(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})" if of else "0"


def _detail(key: str, shown: Mapping[str, Sequence[Item]]) -> list[dict[str, Any]]:
    counts = [Counter(group_of(key, item.get(key)) for item in items) for items in shown.values()]
    total: Counter[Any] = sum(counts, Counter())
    values = [value for value, _ in total.most_common() if value is not None]
    if not values:
        return []
    kept = values[:_VALUES]
    sizes = [len(items) for items in shown.values()]
    rows = [_row(key.replace("_", " "), [""] * len(sizes), heading=True)]
    rows += [
        _row(str(value), [_share(count[value], size) for count, size in zip(counts, sizes, strict=True)])
        for value in kept
    ]
    others = [sum(count[value] for value in values[_VALUES:]) for count in counts]
    rest = {"others": others, "not known": [count[None] for count in counts]}
    rows += [
        _row(name, [_share(one, size) for one, size in zip(found, sizes, strict=True)])
        for name, found in rest.items()
        if any(found)
    ]
    return rows


def _classes(shown: Mapping[str, Sequence[Item]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Positive images of those whose label is known."""
    labels = {
        name: label_matrix(items) if all("label" in item for item in items) else None for name, items in shown.items()
    }
    if not class_names or all(one is None for one in labels.values()):
        return []
    known = [one for one in labels.values() if one is not None and one.shape[1] == len(class_names)]
    frequency = sum(((one == 1).sum(axis=0) for one in known), np.zeros(len(class_names)))
    kept = np.sort(np.argsort(-frequency, kind="stable")[:_CLASSES])
    most = f"; the {_CLASSES} most frequent classes" if len(class_names) > _CLASSES else ""
    rows = [_row(f"positive, of those with a known label{most}", [""] * len(labels), heading=True)]
    for number, name in ((number, class_names[number]) for number in kept):
        cells = []
        for one in labels.values():
            if one is None or one.shape[1] != len(class_names):
                cells.append("-")
                continue
            column = one[:, number]
            cells.append(_share(int((column == 1).sum()), int((~np.isnan(column)).sum())))
        rows.append(_row(name, cells))
    return rows
