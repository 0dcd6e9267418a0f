"""Discrimination of the classes: curves, classes, scores by truth, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cleft_bundle.handlers.plots import MANY, draw_confusion
from cleft_bundle.names import shorten
from cleft_bundle.reports.evaluation import pictures
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.evaluation.sections.parts import (
    LONGEST_TITLE,
    TITLES,
    bar,
    better,
    cell,
    picture,
    row,
    section,
    table,
    text_cell,
)
from cleft_bundle.reports.pages import draw

_COLUMNS = ("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1")


def sections(content: Mapping[str, Any], scored: ScoredImages) -> list[dict[str, Any]]:
    """The sections of discrimination."""
    predictions = scored.predictions
    size = pictures.curve_size(predictions.class_names)
    shown = [
        picture("ROC", draw(pictures.roc_curves, predictions, scored.limits, size=size), _dots(content)),
        picture("Precision and recall", draw(pictures.recall_curves, predictions, size=size),
                "Dotted: the share of positive images of each class, which is what chance gives."),
    ]  # fmt: skip
    matrix = content["confusion_matrix"]
    if matrix is not None:
        side = max(3.4, 1.6 + 0.42 * min(len(matrix), MANY))
        uri = draw(_confusion, np.array(matrix), list(content["classes"]), size=(4.7, side))
        note = "Rows: the class that is present; columns: the class that is called. Shade: share of the row."
        shown.append(picture("Confusion matrix", uri, note))
    return [
        section("Telling the classes apart", "", shown),
        section("Each class", _called(content), tables=[class_table(content)]),
        section("Scores by truth", _histogram_text(content), histograms(content, scored)),
    ]


def _dots(content: Mapping[str, Any]) -> str:
    dotted = "Dotted: chance."
    return f"{dotted} Dots: the thresholds." if content["operating_points"]["classes"] else dotted


def _confusion(figure: Any, matrix: np.ndarray, names: list[str]) -> None:
    draw_confusion(figure.subplots(), matrix, names)


def _called(content: Mapping[str, Any]) -> str:
    if content["task"] == "multiclass":
        return "An image is called the class with the highest calibrated score."
    if not content["operating_points"]["classes"]:
        return "No threshold is known, so that no class is called: figures that need one are left out."
    lacking = [name for name in content["classes"] if name not in content["operating_points"]["classes"]]
    without = f" No threshold is known for {', '.join(lacking)}." if lacking else ""
    return f"A class is called at or above its threshold, on the calibrated score.{without}"


def class_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """The classes with their counts, AUROC as a line, and metrics; the last row is the mean."""
    metrics = content["metrics"]
    rows = []
    for name, counts in content["classes"].items():
        unknown = f"{counts['unknown']:,} unknown" if counts["unknown"] else ""
        cells = [text_cell(f"{counts['positive']:,}"), text_cell(f"{counts['negative']:,}", unknown)]
        cells.append(bar(metrics.get(f"auroc/{name}"), 0.5))
        cells += [cell(metrics.get(f"{column}/{name}")) for column in _COLUMNS]
        rows.append(row(name, cells))
    means = [text_cell(""), text_cell(""), bar(metrics.get("auroc_macro"), 0.5)]
    means += [cell(metrics.get(f"{column}_macro")) for column in _COLUMNS]
    rows.append(row("mean", means, total=True))
    columns = ["positive", "negative", "AUROC, 0 to 1", *(TITLES[column] for column in _COLUMNS)]
    hints = ["images", "images", "line at 0.5: chance", *(better(column) for column in _COLUMNS)]
    return table(columns, rows, first="class", hints=hints)


def _histogram_text(content: Mapping[str, Any]) -> str:
    line = " The line is the threshold." if content["operating_points"]["classes"] else ""
    return (
        f"How many images get which score: those with the class and those without it, each as a share of its own.{line}"
    )


def histograms(content: Mapping[str, Any], scored: ScoredImages) -> list[dict[str, Any]]:
    """A small picture per class; of more than 25 classes those with the lowest AUROCs."""
    predictions, metrics = scored.predictions, content["metrics"]
    names = [name for name in predictions.class_names if f"auroc/{name}" in metrics]
    worst = sorted(names, key=lambda name: metrics[f"auroc/{name}"]["value"])[:MANY]
    shown = []
    for number, name in enumerate(predictions.class_names):
        if name not in worst:
            continue
        columns = predictions.scores[:, number], predictions.labels[:, number]
        uri = draw(pictures.histogram, *columns, scored.limits.get(name), size=(2.9, 2.0))
        shown.append(picture(shorten(name, LONGEST_TITLE), uri, size="small"))
    if shown and len(names) > MANY:
        shown[-1]["note"] = f"Of {len(names)} classes those with the lowest AUROC."
    return shown
