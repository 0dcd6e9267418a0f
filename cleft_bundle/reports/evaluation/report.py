"""The evaluation report: ``report.json``, a page of the same figures, and a table of every image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.files import save_text
from cleft_bundle.reports.evaluation.about import read_about
from cleft_bundle.reports.evaluation.case_pictures import CasePictures, Explain
from cleft_bundle.reports.evaluation.cases import KINDS, choose_cases, outcomes
from cleft_bundle.reports.evaluation.comparison import Comparison
from cleft_bundle.reports.evaluation.estimates import Resampling, estimates, prompt_sensitivity, retrieval_as_json
from cleft_bundle.reports.evaluation.flow import flow, table_one
from cleft_bundle.reports.evaluation.operating import conformal, operating_points
from cleft_bundle.reports.evaluation.per_image import PER_IMAGE, write_per_image
from cleft_bundle.reports.evaluation.same_pictures import picture_lines
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.evaluation.sections import overview, sections
from cleft_bundle.reports.evaluation.shift import Sample, shift
from cleft_bundle.reports.evaluation.tripod import calibration_lines, decision_curves, units
from cleft_bundle.reports.pages import COLOURS, write_page

#: Kinds of cases: their heading, what they are, and what is said where there are none.
CASES = {
    "found": ("Found", "The class is present and called; the surest first.", "No present class was called."),
    "missed": (
        "Missed",
        "The class is present and not called; the lowest scores first.",
        "No present class was missed.",
    ),
    "false_alarms": (
        "False alarms",
        "The class is absent and called; the surest first.",
        "No absent class was called.",
    ),
}

_NO_PROVENANCE: dict[str, Any] = {
    **{
        "command": None,
        "processes": 1,
        "checkpoint": None,
        "files": [],
        "backbones": {},
        "versions": {},
        "config": None,
    }
}


@dataclass(frozen=True)
class Settings:
    """Settings of a report.

    Args:
        resampling: how intervals come about.
        cases: how many images of each kind are shown, and how they are pictured.
        prevalence: share of positives that PPV and NPV are stated for; None: that of the images.
        unit_score: the score of a patient, study or breast: the ``max`` or the ``mean`` of its images.
        shift_images: so many images of the training, and of those at hand, are looked at for their grey levels and
            embeddings, where the training's are there.
        about: JSON file of what only people can say, see :func:`cleft_bundle.reports.evaluation.about.read_about`;
            None: none.
    """

    resampling: Resampling = field(default_factory=Resampling)
    cases: CasePictures = field(default_factory=lambda: CasePictures(8))
    prevalence: float | Mapping[str, float] | None = None
    unit_score: Literal["max", "mean"] = "max"
    about: str | Path | None = None
    shift_images: int = 200


@dataclass(frozen=True)
class Extras:
    """Further things that a report shows, where they are known.

    Args:
        cohorts: names of splits to their items, for the table of who they are; empty: the scored images alone.
        training: what is known of the training's images, and of these, for the section of shift; None: nothing.
        here: the same of the images at hand.
        roles: what the classifier used how many of the patients for, by
            :func:`cleft_bundle.checkpoints.roles`; None: not known.
        unknown_roles: those of which its file does not say everything.
        pictures: of :func:`cleft_bundle.reports.evaluation.same_pictures.same_pictures`; None: not known.
        ranks: of :func:`cleft_bundle.metrics.retrieval_ranks`, the images in the order of the scored ones.
        chance: recall by chance, see :func:`cleft_bundle.metrics.retrieval_chance`.
        variants: scores [N, K] of single prompts, of the scored images.
        variant_prompts: of each variant, name of the class to its prompt.
        prompts: names of classes to their prompts.
        negative_prompts: names of classes to the prompts against them.
        explain: draws heat maps, see :meth:`cleft_bundle.reports.evaluation.CasePictures.explain_by`.
    """

    cohorts: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    training: Sample | None = None
    here: Sample | None = None
    roles: Mapping[str, int] | None = None
    unknown_roles: Sequence[str] = ()
    pictures: Mapping[str, Any] | None = None
    ranks: tuple[np.ndarray, np.ndarray] | None = None
    chance: Mapping[str, float] = field(default_factory=dict)
    variants: Sequence[np.ndarray] = ()
    variant_prompts: Sequence[Mapping[str, str]] = ()
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    negative_prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    explain: Explain | None = None


def write_report(
    scored: ScoredImages,
    output_dir: str | Path,
    dataset: Mapping[str, Any],
    comparison: Comparison,
    settings: Settings | None = None,
    extras: Extras | None = None,
) -> list[Path]:
    """Write the figures of an evaluation, for a program and for a person.

    Args:
        scored: scores, labels and items; all figures are of these alone.
        output_dir: folder that receives the files.
        dataset: ``name``, ``split`` (the one evaluated), ``fingerprint`` (of all splits, or None) and ``phantoms``.
        comparison: with other evaluations of the same images.
        settings: how the report is made.
        extras: what else is known.

    Returns:
        the paths of the page ``report.html``, of ``report.json`` and of ``per_image.csv``.
    """
    settings, extras, folder = settings or Settings(), extras or Extras(), Path(output_dir)
    chosen = choose_cases(scored, settings.cases.count)
    content = _content(scored, folder, dataset, comparison, settings, extras)
    content["cases"] = {kind: [_numbered(scored, case) for case in cases] for kind, cases in chosen.items()}
    counts = {kind: int(places.sum()) for kind, places in outcomes(scored).items()}
    content["outcomes"] = counts
    shown = [
        {
            "title": CASES[kind][0],
            "text": CASES[kind][1],
            "none": CASES[kind][2],
            "count": counts[kind],
            "cases": settings.cases.picture(chosen[kind], scored, extras.explain),
        }
        for kind in KINDS
    ]
    page, program, table = folder / "report.html", folder / "report.json", folder / PER_IMAGE
    write_page(
        page,
        "cleft_bundle.reports.evaluation",
        **content,
        phantom=content["dataset"]["phantoms"],
        colour=COLOURS.get(str(dataset["split"]), "#8a95a1"),
        tiles=overview.tiles(content),
        role_lines=overview.role_lines(content),
        duplicates=picture_lines(extras.pictures),
        flattered=overview.has_chosen(content),
        parts=sections(content, scored),
        calls=bool(scored.called()),
        shown=shown,
        config=json.dumps(content["provenance"]["config"] or {}, indent=2, default=str),
    )
    save_text(json.dumps(content, indent=1, default=str, allow_nan=False) + "\n", program)
    write_per_image(scored, table)
    return [page, program, table]


def _content(
    scored: ScoredImages,
    folder: Path,
    dataset: Mapping[str, Any],
    comparison: Comparison,
    settings: Settings,
    extras: Extras,
) -> dict[str, Any]:
    """All figures, as JSON takes them."""
    resampling, predictions = settings.resampling, scored.predictions
    cohorts = extras.cohorts or {str(dataset["split"]): _labelled(scored)}
    retrieval = None
    if extras.ranks is not None:
        retrieval = retrieval_as_json(*extras.ranks, predictions.patient_numbers(), resampling)
    return {
        "dataset": {
            **{key: dataset[key] for key in ("name", "split", "fingerprint", "phantoms")},
            "images": len(predictions),
            "patients": len(set(predictions.patients)),
        },
        "task": scored.task,
        "resampling": asdict(resampling),
        "about": read_about(settings.about),
        "roles": None if extras.roles is None else dict(extras.roles),
        "unknown_roles": list(extras.unknown_roles),
        "pictures": None if extras.pictures is None else dict(extras.pictures),
        "flow": flow(scored),
        "table_one": table_one(cohorts, scored.class_names),
        "shift": shift(extras.training, extras.here),
        **estimates(scored, resampling),
        "calibration_lines": calibration_lines(scored, resampling),
        "operating_points": operating_points(scored, settings.prevalence, resampling),
        "conformal": conformal(scored, resampling.confidence),
        "decision_curves": decision_curves(scored),
        "unit_score": settings.unit_score,
        "units": units(scored, settings.unit_score, resampling),
        "evaluated_as": comparison.name,
        "comparisons": comparison.estimates(scored, resampling, folder),
        "retrieval": retrieval,
        "retrieval_chance": dict(extras.chance),
        "captions": None if extras.ranks is None else len(extras.ranks[1]),
        "prompt_sensitivity": prompt_sensitivity(scored, extras.variants, extras.variant_prompts),
        "prompts": dict(extras.prompts),
        "negative_prompts": dict(extras.negative_prompts),
        "provenance": {**_NO_PROVENANCE, **scored.provenance},
    }


def _labelled(scored: ScoredImages) -> list[Item]:
    """The scored items with the labels that they are judged by."""
    rows = scored.labels[scored.scored]
    return [{**item, "label": list(row)} for item, row in zip(scored.scored_items, rows, strict=True)]


def _numbered(scored: ScoredImages, case: Mapping[str, Any]) -> dict[str, Any]:
    """A case by its position in the list of images, from 1."""
    position = int(np.flatnonzero(scored.scored)[case["row"]]) + 1
    return {"position": position, **{key: case[key] for key in ("class", "score", "threshold", "called")}}
