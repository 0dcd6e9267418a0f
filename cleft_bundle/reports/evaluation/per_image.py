"""Every evaluated image in one table, under pseudonyms."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.files import replacing
from cleft_bundle.reports.evaluation.cases import outcomes
from cleft_bundle.reports.evaluation.scored import GROUPS, ScoredImages

PER_IMAGE = "per_image.csv"
_WORDS = {
    "found": "true positive",
    "missed": "false negative",
    "false_alarms": "false positive",
    "left_alone": "true negative",
}


def write_per_image(scored: ScoredImages, path: Path) -> None:
    """Write one row per image: pseudonyms, what is known of it, and for each class score, label, call and outcome.

    The columns are ``image``, ``patient``, ``study`` (pseudonyms), ``split``, the groups that are known, ``error``
    (why there is no score), and for each class ``score: <class>``, ``label: <class>`` (1, 0 or nothing where it is
    unknown), ``called: <class>`` (1 or 0) and ``outcome: <class>`` (such as false negative); the last two are empty
    where the class has no threshold. Scores have as many digits as tell them apart.

    Args:
        scored: the images.
        path: the file.
    """
    groups = [key for key in GROUPS if key in scored.predictions.groups]
    columns = ["image", "patient", "study", "split", *groups, "error"]
    for name in scored.class_names:
        columns += [f"{kind}: {name}" for kind in ("score", "label", "called", "outcome")]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(_rows(scored, groups))


def _rows(scored: ScoredImages, groups: list[str]) -> Iterator[list[Any]]:
    kinds = np.full(scored.predictions.scores.shape, "", dtype=object)
    called = np.full(kinds.shape, "", dtype=object)
    for kind, places in outcomes(scored).items():
        kinds[places] = _WORDS[kind]
    limits = [scored.limits.get(name, math.nan) for name in scored.class_names]
    highest = scored.predictions.scores.argmax(axis=1)
    row = -1
    for item, labels, error, kept in zip(scored.items, scored.labels, scored.errors, scored.scored, strict=True):
        row += kept
        study = item.get("study_id")
        cells: list[Any] = [pseudonym(item["name"]), item["patient_id"], study or "", item.get("split") or ""]
        cells += [scored.predictions.groups[key][row] or "" if kept else "" for key in groups]
        cells.append("" if kept else ("unreadable" if error else "no finite score"))
        for number, label in enumerate(labels):
            known = "" if math.isnan(label) else int(label)
            if not kept:
                cells += ["", known, "", ""]
                continue
            score = scored.predictions.scores[row, number]
            if scored.task == "multiclass":
                called[row, number] = int(highest[row] == number)
            elif not math.isnan(limits[number]):
                called[row, number] = int(score >= limits[number])
            cells += [repr(float(score)), known, called[row, number], kinds[row, number]]
        yield cells
