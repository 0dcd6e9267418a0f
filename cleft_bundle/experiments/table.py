"""The table of an experiment: for people as Markdown, LaTeX and HTML, for programs as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cleft_bundle.experiments.estimates import Estimate, Outcome
from cleft_bundle.experiments.experiment_file import Experiment
from cleft_bundle.experiments.forest import draw_forest, name_of
from cleft_bundle.files import replacing, save_text
from cleft_bundle.metrics.intervals import p_text
from cleft_bundle.reports.pages.page import write_page
from cleft_bundle.reports.pages.pictures import svg_uri

NONE = "-"


def write_tables(experiment: Experiment, found: Sequence[Outcome], folder: str | Path) -> list[Path]:
    """Write ``table.md``, ``table.tex``, ``table.html``, ``table.csv``, and the differences as ``forest.svg``.

    Args:
        experiment: what it is called and how it was measured.
        found: the lines, see :func:`cleft_bundle.experiments.estimates.outcomes`.
        folder: receives the files.

    Returns:
        the files.
    """
    folder = Path(folder)
    table = readable(experiment, found)
    notes = notes_of(experiment, found)
    places = {kind: folder / f"table.{kind}" for kind in ("md", "tex", "html", "csv")}
    heading = f"# {_markdown(experiment.name)}\n\n" + (
        f"{experiment.description}\n\n" if experiment.description else ""
    )
    picture = draw_forest(experiment, found)
    places["svg"] = folder / "forest.svg"
    save_text(picture, places["svg"])
    save_text(heading + _markdown_table(table) + "\n\n" + "\n".join(map(_markdown, notes)) + "\n", places["md"])
    caption = "".join(f"% {note}\n" for note in notes)
    save_text(caption + table.to_latex(index=False, escape=True), places["tex"])
    write_page(
        places["html"],
        "cleft_bundle.experiments",
        name=experiment.name,
        description=experiment.description,
        columns=list(table.columns),
        rows=table.to_numpy().tolist(),
        picture=svg_uri(picture),
        notes=notes,
        phantom=False,
    )
    with replacing(places["csv"]) as temporary:
        exact(found).to_csv(temporary, index=False)
    return list(places.values())


def readable(experiment: Experiment, found: Sequence[Outcome]) -> pd.DataFrame:
    """The table as texts: a row per line, for each metric its mean and SD, interval, difference and p-value."""
    rows = []
    for outcome in found:
        row = {"": outcome.line.label, "seeds": str(len(outcome.seeds))}
        for metric in experiment.metrics:
            row |= _cells(metric, outcome.estimates.get(metric), f"{100 * experiment.confidence:g} %")
        counts = outcome.parameters
        row |= {
            "trained: image": f"{counts.image:,}",
            "text": f"{counts.text:,}",
            "heads": f"{counts.heads:,}",
            "CPU min": f"{outcome.cpu_seconds / 60:.1f}",
            "GB": f"{outcome.peak_memory / 2**30:.1f}",
        }
        rows.append(row)
    return pd.DataFrame(rows)


def exact(found: Sequence[Outcome]) -> pd.DataFrame:
    """The table as numbers: a row for each line and metric."""
    rows = []
    for outcome in found:
        for metric, estimate in outcome.estimates.items():
            apart = estimate.difference
            rows.append(
                {
                    "label": outcome.line.label,
                    "row": outcome.line.row,
                    "step": outcome.line.step,
                    "metric": metric,
                    "seeds": " ".join(map(str, outcome.seeds)),
                    "images": outcome.images,
                    "patients": outcome.patients,
                    "mean": estimate.mean,
                    "sd": estimate.sd,
                    "low": estimate.interval.low,
                    "high": estimate.interval.high,
                    "reference": outcome.line.reference if apart else "",
                    "difference": apart.value if apart else math.nan,
                    "difference_sd": estimate.difference_sd,
                    "difference_low": apart.low if apart else math.nan,
                    "difference_high": apart.high if apart else math.nan,
                    "p_value": apart.p_value if apart else math.nan,
                    "p_is_bound": apart.p_is_bound if apart else "",
                    "p_holm": estimate.holm,
                    "trained_image": outcome.parameters.image,
                    "trained_text": outcome.parameters.text,
                    "trained_heads": outcome.parameters.heads,
                    "cpu_seconds": outcome.cpu_seconds,
                    "peak_memory_bytes": outcome.peak_memory,
                    "values": " ".join(f"{value:.6f}" for value in estimate.seeds.values()),
                }
            )
    return pd.DataFrame(rows)


def notes_of(experiment: Experiment, found: Sequence[Outcome]) -> list[str]:
    """Notes under the table."""
    most = max(found, key=lambda one: one.images)
    share = f"{100 * experiment.confidence:g} %"
    classes = ", ".join(f"{count} {name}" for name, count in most.positives.items())
    tests = sum(one.difference is not None for outcome in found for one in outcome.estimates.values())
    notes = [
        f"Measured on the split '{experiment.split}', the same images for every row of a seed: up to {most.images} of "
        f"a seed ({classes}), {max(one.patients for one in found)} patients in all. Mean and SD over seeds.",
        f"{share} intervals are of that mean, by resampling patients {experiment.resamples:,} times. They hold for "
        "these trained models: what another seed would change is the SD's to say.",
        f"Differences are to '{experiment.reference}' unless a row has a reference of its own, on the same images and "
        "the same resamples, ± SD over seeds. p is two-sided, from these resamples, by Holm's correction for all "
        f"{tests} differences of this table.",
        "Trained parameters: image tower, text tower, and projections, temperature, learnt prompts and classification "
        "heads. CPU min: minutes of one processor that all runs of a row take, mean over seeds; runs that rows "
        "share count in each. GB: resident memory of the largest process.",
    ]
    short = [one.line.label for one in found if len(one.seeds) < len(experiment.seeds)]
    return [*notes, f"Not all seeds have ended: {', '.join(short)}."] if short else notes


def _cells(metric: str, estimate: Estimate | None, share: str) -> dict[str, str]:
    name = name_of(metric)
    columns = [name, f"{name}: {share}", f"{name}: difference", f"{name}: p"]
    if estimate is None:
        return dict.fromkeys(columns, NONE)
    spread = NONE if math.isnan(estimate.sd) else f"{estimate.sd:.3f}"
    known = estimate.interval.is_known
    cells = [
        f"{estimate.mean:.3f} ± {spread}",
        f"{estimate.interval.low:.3f} to {estimate.interval.high:.3f}" if known else NONE,
    ]
    apart = estimate.difference
    if apart is None:
        return dict(zip(columns, [*cells, "reference", NONE], strict=True))
    spread = "" if math.isnan(estimate.difference_sd) else f" ± {estimate.difference_sd:.3f}"
    bounds = f" ({apart.low:+.3f} to {apart.high:+.3f})" if apart.is_known else ""
    p_value = NONE if math.isnan(estimate.holm) else p_text(estimate.holm, apart.p_is_bound)
    return dict(zip(columns, [*cells, f"{apart.value:+.3f}{spread}{bounds}", p_value], strict=True))


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(table.columns), *table.to_numpy().tolist()]
    lines = ["| " + " | ".join(map(_markdown, row)) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(table.columns) - 1))
    return "\n".join(lines)


def _markdown(text: str) -> str:
    """A text in which no character means anything to Markdown, or begins a tag."""
    return re.sub(r"([\\`*_\[\]|#<>])", r"\\\1", " ".join(text.split()))
