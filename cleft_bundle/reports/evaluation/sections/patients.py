"""The patients of a report: intended use, flow, description of the splits, and shift against the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.handlers.plots import MANY
from cleft_bundle.reports.evaluation.about import FIELDS
from cleft_bundle.reports.evaluation.sections.parts import row, section, table, text_cell


def about(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Section of what people filled in, and what they did not."""
    given = content["about"]
    missing = ", ".join(title.lower() for key, title in FIELDS.items() if key not in given)
    rows = [row(FIELDS[key], [text_cell(text)]) for key, text in given.items()]
    text = f"Not filled in: {missing}. See docs/about_evaluation.json." if missing else ""
    tables = [table([""], rows, facts=True)] if rows else []
    return [section("Intended use, reference standard, limits", text, tables=tables)]


def flow(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From the images that there were to those that are reported."""
    found = content["flow"]
    rows = [_counts("listed, with a row of labels", found["listed"])]
    rows += [_counts(f"left out: {one['reason']}", one) for one in found["excluded"]]
    rows.append({**_counts("evaluated", found["evaluated"]), "total": True})
    if found["without_labels"]["images"]:
        rows.append(_counts("of these without any known label, in no figure", found["without_labels"]))
    if found["some_unknown"]["images"]:
        rows.append(
            _counts("of these with a label that is not known, in the figures of the others", found["some_unknown"])
        )
    note = "" if found["excluded"] else "No image was left out."
    return [section("Flow of images and patients", tables=[table(["images", "patients"], rows, note=note),
                                                           *_unknown(found["unknown"])])]  # fmt: skip


def _unknown(found: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Images left out of the figures of single classes; of many classes those with the most."""
    if not found:
        return []
    kept = sorted(found, key=lambda name: found[name]["images"], reverse=True)[:MANY]
    rows = [_counts(name, counts) for name, counts in found.items() if name in kept]
    note = "" if len(kept) == len(found) else f"Of {len(found)} classes those with the most."
    title = "Left out of the figures of single classes, whose label is not known"
    return [table(["images", "patients"], rows, title=title, first="class", note=note)]


def _counts(name: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    cells = [text_cell("-" if counts[key] is None else f"{counts[key]:,}") for key in ("images", "patients")]
    return row(name, cells)


def table_one(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Age, sex, view, scanner and classes by split."""
    found = content["table_one"]
    rows = [
        row(one["name"], [text_cell(text) for text in one["cells"]], heading=one["heading"]) for one in found["rows"]
    ]
    text = "Counts of images; in brackets their share of the split."
    return [section("Table 1: who they are", text, tables=[table(found["columns"], rows)])]


def shift(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Section on how the images differ from those of the training."""
    found = content["shift"]
    if found is None:
        return []
    rows = [
        row(one["name"], [text_cell(one[key]) for key in ("training", "here", "distance")]) for one in found["rows"]
    ]
    text = [
        "What a classifier has not seen in training it may score wrongly, and thresholds chosen there may not hold.",
        f"Not known, and so not compared: {', '.join(found['unknown'])}." if found["unknown"] else "",
    ]
    columns = ["training", "these images", "distance"]
    return [section("Shift against the training", text, tables=[table(columns, rows)] if rows else [])]
