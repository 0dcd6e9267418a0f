"""Thresholds: what they do, and what acting on them is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.handlers.plots import MANY
from cleft_bundle.names import shorten
from cleft_bundle.reports.evaluation import pictures
from cleft_bundle.reports.evaluation.sections.parts import (
    LONGEST_TITLE,
    bare,
    cell,
    picture,
    row,
    section,
    table,
    text_cell,
)
from cleft_bundle.reports.pages import draw

_COUNTS = ("tp", "fp", "fn", "tn")
_ESTIMATES = ("sensitivity", "specificity", "ppv", "npv")
_RATIOS = ("lr_positive", "lr_negative")


def sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sections of operating points and decision curves; none where nothing is known for them."""
    return [*_points(content), *_sets(content), *_decisions(content)]


def _sets(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Coverage of conformal sets by class."""
    found = content.get("conformal")
    if not found:
        return []
    same = content["operating_points"]["chosen"].get("same_images")
    text = [
        f"The set of an image has each class whose score reaches the limit of the class: chosen for the smallest sets "
        f"that keep a class for {found['coverage']:.0%} of the images that have it, of new patients like those it was "
        f"chosen on. A set holds {found['size']:.2f} classes on average.",
        "The limits are chosen on these same images, which flatters the figures." if same else "",
    ]
    rows = [row(name, [bare(one["limit"], ".3g"), cell(one["covered"])]) for name, one in found["classes"].items()]
    hints = ["score", f"{found['coverage']:.0%} is promised"]
    return [section("Conformal sets", text, tables=[table(["limit", "covered"], rows, hints=hints)])]


def _points(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = content["operating_points"]
    if not found["classes"]:
        return []
    single = content["task"] == "multiclass"
    text = [
        _how(found["chosen"]),
        "Each class against all others." if single else "",
        "PPV and NPV hold for the prevalence. A likelihood ratio says how much the odds of the class rise, or fall, "
        "by a result at or above the threshold, or below it.",
    ]
    rows, counts = [], []
    for name, point in found["classes"].items():
        cells = [bare(point[key], ".3g") for key in ("threshold", "prevalence")]
        rows.append(row(name, [*cells, *(cell(point[key]) for key in _ESTIMATES)]))
        numbers = [text_cell(f"{point[key]:,}") for key in _COUNTS]
        counts.append(row(name, [*numbers, *(_ratio(point[key]) for key in _RATIOS)]))
    hints = ["score", "share of positives", *("higher is better" for _ in _ESTIMATES)]
    first = table(["threshold", "prevalence", "sensitivity", "specificity", "PPV", "NPV"], rows, hints=hints)
    columns = ["TP", "FP", "FN", "TN", "LR+", "LR-"]
    hints = ["images", "images", "images", "images", "higher is better", "lower is better"]
    return [section("Operating points", text, tables=[first, table(columns, counts, hints=hints)])]


def _ratio(estimate: Any) -> dict[str, Any]:
    return cell(estimate, ".2f") if isinstance(estimate, Mapping) else bare(estimate, ".2f")


def _how(chosen: Mapping[str, Any]) -> str:
    """How the thresholds were chosen, in words."""
    if not chosen.get("rule"):
        return f"The thresholds are {chosen.get('on') or 'as given'}."
    aim = "the sum of sensitivity and specificity is highest"
    if chosen.get("target") is not None:
        other = "specificity" if chosen["rule"] == "sensitivity" else "sensitivity"
        aim = f"{chosen['rule']} is {chosen['target']:g} or more and {other} highest"
    where = f", chosen on {chosen['on']}" if chosen.get("on") else ""
    if chosen.get("same_images"):
        where += ", which flatters the figures: evaluate the test split for fair ones"
    return f"The threshold of each class, on the calibrated score, is the one at which {aim}{where}."


def _decisions(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Net benefit over the threshold probability by class; of more than 25 classes the most frequent ones."""
    curves = content["decision_curves"]
    if not curves:
        return []
    counts = content["classes"]
    kept = sorted(curves, key=lambda name: counts[name]["positive"], reverse=True)[:MANY]
    points = content["operating_points"]["classes"]
    shown = []
    for name, curve in curves.items():
        if name in kept:
            threshold = points.get(name, {}).get("threshold")
            uri = draw(pictures.decision_curve, curve, threshold, size=(2.9, 2.2))
            shown.append(picture(shorten(name, LONGEST_TITLE), uri, size="small"))
    text = (
        "Net benefit: true positives per image, less false positives weighted by the odds of the threshold probability "
        "at which one would act (Vickers and Elkin, 2006). Higher is better; grey: acting on all images, and on none."
    )
    if len(curves) > MANY:
        text += f" Of {len(curves)} classes the most frequent {MANY}."
    return [section("Decision curves", text, shown)]
