"""The parts of an evaluation report that are made of pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cleft_bundle.evaluation import pictures
from cleft_bundle.handlers.plots import MANY, draw_confusion
from cleft_bundle.metrics import Predictions
from cleft_bundle.metrics.retrieval import KS
from cleft_bundle.pages import draw

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
}
#: Kinds of cases: their heading, and what they are.
CASES = {
    "found": ("Right and sure", "The class is present, and its score is among the highest."),
    "missed": ("Missed", "The class is present, but its score is among the lowest."),
    "false_alarms": ("False alarms", "The class is absent, but its score is among the highest."),
}
_COLUMNS = ("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1")
_SPREAD = ("mean", "sd", "low", "high")
_POINT = ("sensitivity", "specificity", "ppv", "npv")
_DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}


def tiles(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four figures at the top: ``title``, ``note``, ``text`` and ``range``."""
    mean = f"mean of {len(content['classes'])} classes"
    if content["task"] == "multiclass":
        wanted = {"accuracy": "highest score is right", "balanced_accuracy": "mean sensitivity"}
    else:
        wanted = {"balanced_accuracy_macro": f"{mean}, at 0.5", "f1_macro": f"{mean}, at 0.5"}
    wanted = {"auroc_macro": mean, "average_precision_macro": mean} | wanted
    return [
        {"title": TITLES[name.removesuffix("_macro")], "note": note, **_cell(content["metrics"][name])}
        for name, note in wanted.items()
        if name in content["metrics"]
    ]


def class_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """The table of the classes: ``columns``, and ``rows`` of a name, counts and metrics, the last one of means."""
    metrics = content["metrics"]
    rows = [
        {"name": name, "counts": counts, "cells": [_cell(metrics.get(f"{column}/{name}")) for column in _COLUMNS]}
        for name, counts in content["classes"].items()
    ]
    means = {"name": "mean", "counts": None, "cells": [_cell(metrics.get(f"{column}_macro")) for column in _COLUMNS]}
    return {"columns": [TITLES[column] for column in _COLUMNS], "rows": [*rows, means]}


def _cell(figure: Mapping[str, Any] | None) -> dict[str, str]:
    """A figure as text and its interval as text, empty where there is none."""
    if figure is None:
        return _bare(None)
    return {"text": f"{figure['value']:.3f}", "range": _interval_text(figure)}


def _bare(value: float | None, form: str = ".3f") -> dict[str, str]:
    """A number as text, without an interval; None is a dash."""
    return {"text": "-" if value is None else format(value, form), "range": ""}


def _interval_text(figure: Mapping[str, Any]) -> str:
    """The bounds of a figure, or nothing."""
    return "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"


def parts(content: Mapping[str, Any], predictions: Predictions) -> list[dict[str, Any]]:
    """The sections of pictures (``title``, ``uri``, ``note``, ``half``) and tables."""
    return [
        _discrimination(content, predictions),
        _calibration(content),
        *_operating_points(content),
        *_comparisons(content),
        *_prompts(content),
        *_subgroups(content),
        *_retrieval(content),
    ]


def _section(
    title: str,
    text: str,
    shown: Sequence[Mapping[str, Any]],
    columns: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A section: pictures, or a table of ``rows`` with a name and cells."""
    return {"title": title, "text": text, "pictures": shown, "columns": columns, "rows": rows}


def _picture(title: str, uri: str, note: str = "", half: bool = False) -> dict[str, Any]:
    return {"title": title, "uri": uri, "note": note, "half": half}


def _discrimination(content: Mapping[str, Any], predictions: Predictions) -> dict[str, Any]:
    classes, metrics = content["classes"], content["metrics"]
    legend = 0.22 * -(-min(len(classes), MANY) // 3)
    dotted = "Dotted lines: what chance gives; at the right, the share of positive images of each class."
    shown = [_picture("Curves", draw(pictures.curves, predictions, size=(9.5, 4.7 + legend)), dotted)]
    rows = [
        {"name": name, "note": f"{counts['positive']:,} of {counts['positive'] + counts['negative']:,}"}
        | {key: metrics.get(f"auroc/{name}", {}).get(key) for key in ("value", "low", "high")}
        for name, counts in classes.items()
        if f"auroc/{name}" in metrics
    ]
    note = "At the right, positive images of those with a known label."
    if len(rows) > MANY:
        ordered = sorted(rows, key=lambda row: row["value"])
        rows = ordered[: MANY // 2] + ordered[-MANY // 2 :]
        note += f" Of {len(ordered)} classes those with the lowest and the highest figures; the table has all."
    height = 0.9 + 0.32 * len(rows)
    half = content["confusion_matrix"] is not None
    if rows:
        uri = draw(pictures.forest, rows, "AUROC", 0.5, size=(4.7 if half else 9.5, max(height, 3.4 if half else 0)))
        shown.append(_picture("AUROC of each class", uri, note, half))
    if half:
        side = max(3.4, 1.6 + 0.42 * min(len(classes), MANY))
        uri = draw(_confusion, np.array(content["confusion_matrix"]), list(classes), size=(4.7, side))
        note = "Rows: the class that is present; columns: the class with the highest score. Shade: share of the row."
        shown.append(_picture("Confusion matrix", uri, note, half))
    return _section("Telling the classes apart", "", shown)


def _calibration(content: Mapping[str, Any]) -> dict[str, Any]:
    text = (
        "Of the images that are given a probability of 0.8, about 80 % should have the class. Dots below the line: the "
        "probabilities are too high."
    )
    single = content["task"] == "multiclass"
    shown = [_reliability("As the network gives them", content, single)]
    calibrated, fitted = content["operating_points"]["calibrated"], content["operating_points"]["calibration"]
    if calibrated and fitted["method"] != "none":
        biased = " and a bias for each class" if fitted["method"] == "bias" else ""
        title = f"With a temperature of {fitted['temperature']:.3g}{biased}, fitted on the validation split"
        shown.append(_reliability(title, calibrated, single))
    return _section("Calibration", text, shown)


def _reliability(title: str, content: Mapping[str, Any], single: bool) -> dict[str, Any]:
    bins, metrics = content["reliability"], content["metrics"]
    names = {"highest": "ece"} if single else {name: f"ece/{name}" for name in bins}
    rows = [
        (f"{name}, ECE {metrics[names[name]]['value']:.3f}" if names[name] in metrics else name, diagram)
        for name, diagram in bins.items()
    ]
    most = f" Of {len(rows)} classes the {MANY - 1} with the largest ECE." if len(rows) > MANY else ""
    if most:
        worst = sorted(bins, key=lambda name: metrics.get(names[name], {}).get("value") or 0.0, reverse=True)
        rows = [row for name, row in zip(bins, rows, strict=True) if name in worst[: MANY - 1]]
    across = min(len(rows), 4)
    size = (4.7, 3.4) if single else (9.5 * across / 4 + 0.2, 2.9 * -(-len(rows) // across))
    uri = draw(pictures.reliability_diagrams, rows, across, size=size)
    mark = "" if single else "_macro"
    words = "the highest probability" if single else "mean of the classes"
    sizes = ", ".join(
        f"{TITLES[name]} {cell['text']} ({cell['range'] or 'no interval'})"
        for name in ("ece", "brier")
        if (cell := _cell(metrics.get(f"{name}{mark}")))["text"] != "-"
    )
    note = f"{sizes[:1].upper()}{sizes[1:]}; {words}. Areas of the dots: images in the bin.{most}"
    return _picture(title, uri, note, half=single)


def _operating_points(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = content["operating_points"]
    if not found["classes"]:
        return []
    aim = "the sum of sensitivity and specificity is highest"
    if found["target"] is not None:
        other = "specificity" if found["rule"] == "sensitivity" else "sensitivity"
        aim = f"{found['rule']} is {found['target']:g} or more and {other} highest"
    where = "on the validation split"
    if found["same_images"]:
        where = "on these same images, which flatters the figures: evaluate the test split for fair ones"
    text = (
        f"The threshold of each class, on the calibrated probability, is the one at which {aim}, chosen {where}. "
        "PPV and NPV hold for the prevalence."
    )
    rows = [
        {
            "name": name,
            "cells": [_bare(point[key], ".3g") for key in ("threshold", "prevalence")]
            + [_cell(point[key] if point[key]["value"] is not None else None) for key in _POINT],
        }
        for name, point in found["classes"].items()
    ]
    columns = ["threshold", "prevalence", "sensitivity", "specificity", "PPV", "NPV"]
    return [_section("Operating points", text, [], columns, rows)]


def _comparisons(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = [content["evaluated_as"], "the other", "difference", "p"]
    sections = []
    for other in content["comparisons"]:
        rows = [
            {
                "name": title,
                "cells": [
                    _bare(figure["first"]),
                    _bare(figure["second"]),
                    {"text": f"{figure['value']:+.3f}", "range": _interval_text(figure)},
                    _bare(figure["p_value"]),
                ],
            }
            for name, title in _compared(content)
            if (figure := other["metrics"].get(name))
        ]
        text = (
            "The same images, and the same resamples of patients for both. p is for no difference, of each row alone."
        )
        sections.append(_section(f"Compared with {other['name']}", text, [], columns, rows))
    return sections


def _compared(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names of the metrics that comparisons show, and their titles."""
    overall = ("auroc_macro", "average_precision_macro", "accuracy", "balanced_accuracy", "f1_macro", "brier_macro")
    named = [(name, TITLES[name.removesuffix("_macro")]) for name in overall if name in content["metrics"]]
    return named + [(f"auroc/{name}", f"AUROC, {name}") for name in content["classes"]]


def _prompts(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = content["prompt_sensitivity"]
    if found is None:
        return []
    rows = [
        {
            "name": title,
            "cells": [_bare(content["metrics"][name]["value"]), *(_bare(spread[key]) for key in _SPREAD)],
        }
        for name, title in _compared(content)
        if (spread := found["metrics"].get(name))
    ]
    text = (
        f"All prompts of a class together, against {len(found['prompts'])} variants of one prompt a class: the first "
        "of each, the second, and so on."
    )
    columns = ["all prompts", "mean of the variants", "standard deviation", "lowest", "highest"]
    return [_section("What the words of the prompts change", text, [], columns, rows)]


def _subgroups(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """AUROC of each value of each group; the other metrics are in report.json."""
    metric = "auroc_macro"
    rows: list[dict[str, Any]] = []
    small, gaps = [], []
    for group, found in content["subgroups"].items():
        title = group.replace("_", " ")
        shown = {value: metrics[metric] for value, metrics in found["values"].items() if metric in metrics}
        rows.append({"name": title})
        for value, figure in shown.items():
            if figure["low"] is None:
                small.append(f"{title} {value} ({figure['n_images']:,} images)")
            else:
                note = f"{figure['n_images']:,} images, {figure['n_patients']:,} patients"
                rows.append({"name": value, "note": note} | {key: figure[key] for key in ("value", "low", "high")})
        if "value" not in rows[-1]:
            rows.pop()
        if gap := found["gaps"].get(metric):
            difference = gap["difference"]
            gaps.append(f"{title} {difference['value']:.3f} ({gap['best']} over {gap['worst']}, "
                        f"{_interval_text(difference)})")  # fmt: skip
    if not rows and not small:
        return []
    notes = [f"Largest gaps, which tend to look too large: {'; '.join(gaps)}." if gaps else ""]
    notes.append(f"Too few patients for an interval, and left out: {', '.join(small)}." if small else "")
    note = " ".join(filter(None, notes))
    whole = content["metrics"].get(metric, {}).get("value")
    uri = draw(pictures.forest, rows, "AUROC, mean of the classes", whole, size=(9.5, 0.9 + 0.28 * len(rows)))
    text = "Dashed: all images together. The other metrics of each group are in report.json."
    picture = [_picture("AUROC by group", uri, note)] if rows else []
    return [_section("Kinds of patients and images", text if rows else note, picture)]


def _confusion(figure: Any, matrix: np.ndarray, names: list[str]) -> None:
    draw_confusion(figure.subplots(), matrix, names)


def _retrieval(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = content["retrieval"]
    if found is None:
        return []
    table = [
        {
            "name": words,
            "cells": [_cell(found.get(f"{direction}_recall_at_{k}")) for k in KS]
            + [_bare(found[f"{direction}_median_rank"]["value"], "g")],
        }
        for direction, words in _DIRECTIONS.items()
    ]
    text = (
        f"Each image seeks its caption among {content['captions']:,} different ones, and each of these any of its "
        f"images among {content['dataset']['images']:,}. Recall at k: the share that is found among the first k."
    )
    columns = [*(f"recall at {k}" for k in KS), "median rank"]
    return [_section("Retrieval", text, [], columns, table)]
