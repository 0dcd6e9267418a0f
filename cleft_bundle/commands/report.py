"""``cleft report``: evaluate a classifier, or the scores of any other tool, on labelled images."""

from __future__ import annotations

import math
import os
import shlex
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cleft_bundle.checkpoints import roles as roles_of
from cleft_bundle.checkpoints import training_images, unknown_roles
from cleft_bundle.data import read_pictures
from cleft_bundle.data.datasets.folder import datalist
from cleft_bundle.data.phantoms.folder import is_phantom
from cleft_bundle.errors import BundleError, UsageError, nearest, require_one_of
from cleft_bundle.handlers.tracking import package_versions
from cleft_bundle.inference import Scorer
from cleft_bundle.reports.evaluation import (
    CasePictures,
    Comparison,
    Extras,
    Resampling,
    ScoredImages,
    Settings,
    write_report,
)
from cleft_bundle.reports.evaluation.provenance import file_read
from cleft_bundle.reports.evaluation.same_pictures import same_pictures
from cleft_bundle.reports.evaluation.shift import as_it_is, looked_at, sample_of, sample_of_counts
from cleft_bundle.reports.evaluation.sources import embedding_by, maps_by, scored_by_model, scored_by_table
from cleft_bundle.reports.evaluation.tables import read_thresholds
from cleft_bundle.secrets import masked


@dataclass(frozen=True)
class Options:
    """Options of ``cleft report``, as texts; see :func:`report`."""

    labels: str = ""
    scores: str = ""
    model: str = ""
    images: str | None = None
    output_dir: str = "report"
    thresholds: str | None = None
    classes: str | None = None
    combine: str | None = None
    task: str | None = None
    split: str | None = None
    name: str | None = None
    compared_with: str | None = None
    training: str | None = None
    about: str | None = None
    prevalence: str | None = None
    unit_score: str = "max"
    resamples: str = "1000"
    confidence: str = "0.95"
    seed: str = "0"
    cases: str = "8"
    shift_images: str = "200"
    device: str = "cpu"
    batch_size: str = "8"
    num_workers: str = "0"

    def __post_init__(self) -> None:
        """Refuse what does not go together, before anything is read."""
        if not self.labels or bool(self.scores) == bool(self.model):
            raise UsageError("expected --labels TABLE, and either --scores TABLE or --model FILE")
        require_one_of("unit_score", self.unit_score, ("max", "mean"))
        _ = self.settings, self.loading

    @property
    def title(self) -> str:
        """Name of the classifier."""
        return self.name or Path(self.scores or self.model).name

    @property
    def settings(self) -> Settings:
        """Settings of the report."""
        whole = {key: _whole(key, getattr(self, key), least) for key, least in _LEAST.items()}
        return Settings(
            resampling=Resampling(whole["resamples"], _number("confidence", self.confidence), whole["seed"]),
            cases=CasePictures(whole["cases"], as_it_is()),
            prevalence=None if self.prevalence is None else _number("prevalence", self.prevalence),
            unit_score="mean" if self.unit_score == "mean" else "max",
            shift_images=whole["shift_images"],
            about=self.about,
        )

    @property
    def loading(self) -> dict[str, int]:
        """Options by which a classifier reads images."""
        return {key: _whole(key, getattr(self, key), least) for key, least in _READING.items()}


_LEAST = {"resamples": 1, "seed": 0, "cases": 0, "shift_images": 0}
_READING = {"batch_size": 1, "num_workers": 0}


def report(**options: str) -> None:
    """Write a report of scores and labels: report.html, report.json and per_image.csv.

    The scores come from a table (--scores), of this package or of any other tool, or from a classifier file (--model:
    model.pt, finetuned.pt, .onnx, TorchScript), which scores the images; no language model is needed.

    Args:
        options: any of these.
            --labels TABLE: image, finding (several by |), and where they are known patient_id, study_id, split, sex,
            age, view, laterality, density, manufacturer.
            --scores TABLE: image, and a column of scores for each class.
            --model FILE: a classifier, with its calibration and its thresholds.
            --images FOLDER: of the images; by default the labels name them relative to their table.
            --output_dir FOLDER: for the files; by default report.
            --thresholds JSON: object of classes to scores, a file of one, or the report.json of another evaluation.
            --classes NAMES: the classes to take from the table of scores, joined by |; by default all.
            --combine JSON: object of new classes to lists of classes that exclude each other, whose scores are added
            up, such as {"pneumonia": ["bacterial pneumonia", "viral pneumonia"]}, or a file of one.
            --task multiclass (classes exclude each other) or multilabel; by default what the scores look like.
            --split NAME: take the rows of this split only.
            --name NAME: what the classifier is called.
            --compared_with FOLDERS: other reports of the same images, joined by the system's separator of paths.
            --training TABLE: the labels of the training, beside its images, for the section of shift.
            --about FILE: JSON of intended use, reference standard and limits, as docs/about_evaluation.json.
            --prevalence P: share of positives that PPV and NPV are stated for.
            --unit_score max or mean: the score of a patient, study or breast, of those of its images.
            --resamples N, --confidence P, --seed N: how intervals come about; by default 1000, 0.95 and 0.
            --cases N: images shown of each kind; by default 8.
            --shift_images N: images of the training, and of these, whose grey levels are looked at; by default 200.
            --device NAME, --batch_size N, --num_workers N: how a classifier computes; by default cpu, 8 and 0.

    Raises:
        BundleError: an argument or a table is not as described.
    """
    known = [field.name for field in fields(Options)]
    if strange := [key for key in options if key not in known]:
        raise UsageError(f"--{strange[0]} is no option of report{nearest(strange[0], known)}")
    given = Options(**options)
    settings = given.settings
    scored, extras = _of_table(given) if given.scores else _of_model(given)
    if given.thresholds is not None:
        limits = read_thresholds(given.thresholds, scored.class_names)
        scored = replace(scored, thresholds=limits, chosen={"on": "as given by --thresholds"})
    scored = replace(scored, provenance={**scored.provenance, **_provenance(given)})
    comparison = Comparison(given.title, _folders(given.compared_with), scored.scored_items, scored.class_names)
    for path in write_report(scored, given.output_dir, _dataset(given, scored), comparison, settings, extras):
        print(path)


def _of_table(given: Options) -> tuple[ScoredImages, Extras]:
    """The images as a table of scores has them."""
    wanted = [one.strip() for one in given.classes.split("|")] if given.classes else None
    scored = scored_by_table(
        given.scores, given.labels, given.title, wanted, given.task, given.split, given.combine, given.images
    )
    before = here = None
    if given.training is not None:
        most = given.settings.shift_images
        before, here = (looked_at(items, most) for items in (datalist(given.training), scored.scored_items))
    items = scored.scored_items
    pictures = same_pictures(read_pictures(items), given.split or "test") if os.path.isfile(items[0]["image"]) else None
    return scored, Extras(training=before, here=here, pictures=pictures)


def _of_model(given: Options) -> tuple[ScoredImages, Extras]:
    """The images as a classifier scores them, and what its file knows of its patients and its training."""
    scorer = Scorer(given.model, given.device, **given.loading)
    scored = scored_by_model(scorer, given.labels, given.title, given.split, given.combine, given.images)
    items = scored.scored_items
    before, here = sample_of_counts(training_images(scorer.provenance)), sample_of(items)
    if given.training is not None:
        most, embed = given.settings.shift_images, embedding_by(scorer)
        before, here = (looked_at(some, most, embed) for some in (datalist(given.training), items))
    return scored, Extras(
        training=before,
        here=here,
        roles=roles_of(scorer.provenance, items),
        unknown_roles=unknown_roles(scorer.provenance),
        pictures=same_pictures(read_pictures(items), given.split or "test", scorer.provenance),
        explain=maps_by(scorer),
    )


def _dataset(given: Options, scored: ScoredImages) -> dict[str, Any]:
    folder = Path(given.labels).absolute().parent
    named = sorted({str(item["split"]) for item in scored.items if item.get("split")})
    return {
        "name": folder.name,
        "split": given.split or ", ".join(named) or "test",
        "fingerprint": None,
        "phantoms": is_phantom(folder) or "phantom" in folder.name.lower(),
    }


def _provenance(given: Options) -> dict[str, Any]:
    words = " ".join(shlex.quote(word) for word in ["cleft", *sys.argv[1:]])
    read = {"scores": given.scores, "model": given.model, "labels": given.labels, "about": given.about}
    files = [file_read(kind, path) for kind, path in read.items() if path]
    return {"command": masked(words), "files": files, "versions": package_versions()}


def _folders(given: str | None) -> list[str]:
    """The folders that an argument names; the separator may be part of a folder's name."""
    if given is None:
        return []
    return [given] if os.path.isdir(given) else [one for one in given.split(os.pathsep) if one]


def _whole(name: str, value: str, least: int) -> int:
    if not str(value).isdecimal() or int(value) < least:
        raise BundleError(f"{name}: expected a whole number, {least} or more, got '{value}'")
    return int(value)


def _number(name: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 < found < 1:
        raise BundleError(f"{name}: expected a number between 0 and 1, got '{value}'")
    return found
