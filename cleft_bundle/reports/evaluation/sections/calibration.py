"""Calibration of the scores, as the classifier answers them and before its own calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.handlers.plots import MANY
from cleft_bundle.metrics.calibration import HIGHEST
from cleft_bundle.names import shorten
from cleft_bundle.reports.evaluation import pictures
from cleft_bundle.reports.evaluation.sections.parts import (
    LONGEST_TITLE,
    TITLES,
    better,
    cell,
    picture,
    row,
    section,
    table,
)
from cleft_bundle.reports.pages import draw


def sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The section of calibration, and where the classifier calibrates, that of the scores before it."""
    if content["reliability"] is None:
        return [
            section(
                "Calibration", "Some scores lie outside 0 to 1: they are no probabilities, and have no calibration."
            )
        ]
    text = [
        "Of the images that are given a score of 0.8, about 80 % should have the class. Dots below the line: the "
        "scores are too high. Slope 1 and intercept 0 are right; a slope below 1 means scores that are too extreme, an "
        "intercept below 0 scores that are too high.",
        _fitted(content),
    ]
    shown = diagrams(content["reliability"], content["metrics"], content["calibration_lines"])
    found = [section("Calibration", text, shown, [_table(content)])]
    before = content["uncalibrated"]
    if before is not None:
        compared = _before_and_after(content, before)
        pictures_before = diagrams(before["reliability"], before["metrics"], {})
        words = "What the network gives without calibration. Nobody is answered with these scores."
        found.append(section("Before calibration", words, pictures_before, [compared]))
    return found


def _fitted(content: Mapping[str, Any]) -> str:
    """How the scores came to be calibrated, in words."""
    points = content["operating_points"]
    fitted = points["calibration"]
    if not fitted:
        return "How the scores were calibrated is not known."
    if fitted["method"] == "none":
        return "The scores are not calibrated."
    biased = " and a bias for each class" if fitted["method"] == "bias" else ""
    low, high = fitted.get("low"), fitted.get("high")
    between = "" if low is None else f" ({low:.3g} to {high:.3g})"
    words = f"Calibrated by a temperature of {fitted['temperature']:.3g}{between}{biased}"
    place = points["chosen"].get("on")
    images = f", {fitted['images']:,} images" if fitted.get("images") else ""
    flattered = ", so that this section flatters it" if points["chosen"].get("same_images") else ""
    return f"{words}, fitted on {place}{images}{flattered}." if place else f"{words}."


def _before_and_after(content: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """ECE and Brier score of each class or of the highest score, and their means, without and with calibration."""
    rows = []
    for name, mark in {
        **{name: f"/{name}" for name in content["classes"]},
        "mean": "_macro",
        "highest score": "",
    }.items():
        keys = [f"{key}{mark}" for key in ("ece", "brier")]
        if keys[0] in content["metrics"] or keys[0] in before["metrics"]:
            cells = [cell(found["metrics"].get(key)) for key in keys for found in (before, content)]
            rows.append(row(name, cells, total=name == "mean"))
    columns = [f"{TITLES[key]}, {when}" for key in ("ece", "brier") for when in ("before", "as answered")]
    return table(columns, rows, hints=["lower is better"] * len(columns))


def _table(content: Mapping[str, Any]) -> dict[str, Any]:
    """Slope, intercept, ECE and Brier score of each class or of the highest score, and their means."""
    metrics, lines = content["metrics"], content["calibration_lines"]
    rows = []
    for name in content["reliability"]:
        line = lines.get(name) or {}
        mark = "" if name == HIGHEST else f"/{name}"
        cells = [cell(line.get("slope"), ".2f"), cell(line.get("intercept"), ".2f")]
        cells += [cell(metrics.get(f"{key}{mark}")) for key in ("ece", "brier")]
        rows.append(row("highest score" if name == HIGHEST else name, cells))
    if "ece_macro" in metrics:
        means = [cell(None), cell(None), cell(metrics["ece_macro"]), cell(metrics.get("brier_macro"))]
        rows.append(row("mean", means, total=True))
    hints = ["right: 1", "right: 0", better("ece"), better("brier")]
    return table(["slope", "intercept", "ECE", "Brier score"], rows, hints=hints)


def diagrams(
    reliability: Mapping[str, Any], metrics: Mapping[str, Any], lines: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A small reliability diagram per class; of more than 25 classes those with the largest ECE."""

    def ece(name: str) -> float:
        found = metrics.get("ece" if name == HIGHEST else f"ece/{name}") or {}
        return float(found.get("value") or 0.0)

    kept = sorted(reliability, key=ece, reverse=True)[:MANY]
    shown = []
    for name, diagram in reliability.items():
        if name not in kept or not any(diagram["count"]):
            continue
        line = lines.get(name)
        slope = None if line is None else (line["slope"]["value"], line["intercept"]["value"])
        uri = draw(pictures.reliability_diagram, diagram, slope, size=(2.9, 2.9))
        note = f"ECE {ece(name):.3f}"
        if line is not None and line["slope"]["value"] is not None:
            note += f"; slope {_words(line['slope'])}; intercept {_words(line['intercept'])}"
        shown.append(
            picture("the highest score" if name == HIGHEST else shorten(name, LONGEST_TITLE), uri, note, size="small")
        )
    if shown and len(reliability) > MANY:
        shown[-1]["note"] += f". Of {len(reliability)} classes those with the largest ECE."
    return shown


def _words(estimate: Mapping[str, Any]) -> str:
    found = cell(estimate, ".2f")
    return f"{found['text']} ({found['range']})" if found["range"] else found["text"]
