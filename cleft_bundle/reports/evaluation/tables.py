"""Scores of any tool and labels of any hospital, read from tables and joined by image."""

from __future__ import annotations

import logging
import math
import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets.folder import datalist, images_of
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import given_object
from cleft_bundle.inference.predictions import FIXED
from cleft_bundle.names import column, plain_name
from cleft_bundle.reports.evaluation.scored import GROUPS
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

#: Columns that may name the image of a row of scores, the first that is there counts.
NAMES = ("image", "path", "file", "filename", "name")
#: Columns of a table of scores that are no class.
_NO_CLASS = {*FIXED, *NAMES, *GROUPS, "patient_id", "study_id", "split", "finding", "caption", "label"}
#: What a column of a class may hold: present, absent, and uncertain, as CheXpert writes it.
_MARKS = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": math.nan, "-1.0": math.nan}
_SUM = 1e-3  # how far the scores of an image may be from a sum of 1 where the classes exclude each other


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores.

    Args:
        class_names: names of the K classes, in the order of the columns.
        names: what the N images are called in it.
        scores: float [N, K], NaN where there is none.
        errors: [N], why there is none, "" where there is one.
    """

    class_names: list[str]
    names: list[str]
    scores: np.ndarray
    errors: list[str]


def read_score_table(path: str | Path, classes: Sequence[str] | None = None) -> ScoreTable:
    """Read the scores of any tool: one row per image, one column per class.

    The image is named by the first column of :data:`NAMES` that is there. Every other column that holds numbers only
    is a class, but for those of ``predictions.csv`` that are none, and what people are known by (sex, age and the
    like). A column ``error`` says why a row has no scores.

    Args:
        path: a CSV table, such as ``predictions.csv`` of an inference.
        classes: the classes to take; None: all.

    Raises:
        BundleError: names the file and what is wrong: no column of images, an image in two rows, no column of scores,
            a class that is missing, a score that is no number, or a row with some scores only.
    """
    frame = tables.read_table(path, optional=None)
    named = next((name for name in NAMES if name in frame), None)
    if named is None:
        raise BundleError(f"{path}: expected a column that names the image, one of {', '.join(NAMES)}")
    tables.no_gaps(frame[named], path)
    tables.no_duplicates(frame[named], path)
    columns = _class_columns(frame, path, classes)
    scores = np.column_stack([_numbers(frame[place], path) for place in columns.values()])
    partly = np.isnan(scores).any(axis=1) & ~np.isnan(scores).all(axis=1)
    if partly.any():
        raise BundleError(
            f"{path}: {_rows_have(int(partly.sum()))} a score for some of the classes only, the first is row "
            f"{frame.index[partly][0]}"
        )
    told = list(frame["error"]) if "error" in frame else [""] * len(frame)
    missing = np.isnan(scores).all(axis=1)
    errors = [(error or "no score in the table") if gone else "" for error, gone in zip(told, missing, strict=True)]
    return ScoreTable(list(columns), list(frame[named]), scores, errors)


def _rows_have(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"


def _class_columns(frame: pd.DataFrame, path: str | Path, classes: Sequence[str] | None) -> dict[str, str]:
    """Names of the classes to the columns that hold their scores."""
    if classes is not None:
        known = {_class_of(str(name)): str(name) for name in frame}
        for name in classes:
            if name not in known:
                raise BundleError(f"{path}: there is no column of the class '{name}'{nearest(name, known)}")
        return {name: known[name] for name in classes}
    found = {}
    for place in map(str, frame):
        if place.lower() in _NO_CLASS:
            continue
        values = frame[place][frame[place] != ""]
        numeric = pd.to_numeric(values, errors="coerce").notna()
        if len(values) and numeric.any():
            found[_class_of(place)] = place
        elif len(values):
            logger.info("%s: column '%s' holds no numbers and is no class", path, place)
    if not found:
        raise BundleError(f"{path}: expected a column of scores for each class, found none")
    return found


def _class_of(place: str) -> str:
    """The class whose column is called so, see :func:`cleft_bundle.names.column`."""
    bare = place.removeprefix("class:")
    return bare if place != bare and column(bare, FIXED) == place else place


def _numbers(values: pd.Series, path: str | Path) -> np.ndarray:
    found = pd.to_numeric(values, errors="coerce").astype(float)
    strange = values[~np.isfinite(found) & (values != "")]
    if len(strange):
        raise BundleError(
            f"{path}: column '{values.name}' holds what is no finite number in {tables.rows(len(strange))}, the first "
            f"is '{strange.iloc[0]}' in row {strange.index[0]}"
        )
    return found.to_numpy()


@dataclass(frozen=True)
class LabelTable:
    """A table of labels.

    Args:
        items: one per image with a known label, as :func:`cleft_bundle.data.datasets.folder.datalist` makes them;
            ``label`` is in the order of the classes.
        left_out: reasons why other rows are not among them, to ``images`` and ``patients``.
    """

    items: list[Item]
    left_out: dict[str, dict[str, int | None]]


def read_label_table(path: str | Path, class_names: Sequence[str], split: str | None = None) -> LabelTable:
    """Read labels: ``image``, ``finding`` or a column for each class, and what else ``data_folder.json`` reads.

    Names are compared with the classes without regard to case. A row that has findings has none of the classes that it
    does not name. In a column of a class 1 stands for present, 0 for absent, and nothing, or -1 (uncertain), for not
    known; a class without a column is known of no image.

    Args:
        path: the table.
        class_names: names of the classes.
        split: only the rows of this split; None: all.

    Raises:
        BundleError: as :func:`cleft_bundle.data.datasets.folder.datalist` does; where there is neither ``finding`` nor
            a column of a class; where there is no such split; where two classes have one name but for case; where no
            class has images on both sides.
    """
    lower = [plain_name(name) for name in class_names]
    if twice := [name for name, count in Counter(lower).items() if count > 1]:
        raise BundleError(f"two classes are called '{twice[0]}' but for case: labels cannot tell them apart")
    table = tables.read_table(path, ["image"], optional=None)
    if "finding" in table:
        prompts = PromptSet(["{findings}"], {name: [name] for name in lower}, source=str(path))
        items = datalist(path, prompts=prompts)
    else:
        items = _marked(table, path, lower)
    _add_groups(cast(list[dict[str, Any]], items), table, path)
    left_out: dict[str, dict[str, int | None]] = {}
    if len(items) < len(table):
        left_out["no finding in the table of labels"] = {"images": len(table) - len(items), "patients": None}
    if split is not None:
        wanted = tables.SPLITS.get(split.lower(), split)
        kept = [item for item in items if item["split"] == wanted]
        if not kept:
            there = sorted({str(item["split"]) for item in items})
            raise BundleError(f"{path}: no row has the split '{split}'; there are {', '.join(there)}")
        if others := len(items) - len(kept):
            patients = {item["patient_id"] for item in items if item["split"] != wanted}
            left_out["of another split"] = {"images": others, "patients": len(patients)}
        items = kept
    _check_labels(items, class_names, path)
    return LabelTable(items, left_out)


def _marked(table: pd.DataFrame, path: str | Path, classes: Sequence[str]) -> list[Item]:
    """Items of a table with a column for each class."""
    columns = {
        " ".join(name.removeprefix("class:").lower().split()): name
        for name in map(str, table)
        if name.lower() not in _NO_CLASS
    }
    marks = {name: tables.codes(table[columns[name]], path, _MARKS) for name in classes if name in columns}
    if not marks:
        raise BundleError(
            f"{path}: expected a column 'finding', or one for each class with 1, 0, or nothing where it is not known: "
            f"{', '.join(classes)}"
        )
    if lacking := [name for name in classes if name not in marks]:
        logger.warning("%s: no column of %s: known of no image", path, ", ".join(lacking))
    items = images_of(path)
    for row, item in enumerate(items):
        item["label"] = [mark if (mark := marks.get(name, [None] * len(items))[row]) is not None else math.nan
                         for name in classes]  # fmt: skip
        item["findings"] = {
            name: label for name, label in zip(classes, item["label"], strict=True) if not math.isnan(label)
        }
    return items


def _add_groups(items: Sequence[dict[str, Any]], table: pd.DataFrame, path: str | Path) -> None:
    """Add the groups that a hospital's table may have and the datalist does not read."""
    folder = Path(path).absolute().parent
    place = {str(folder / image): row for row, image in enumerate(table["image"])}
    for key in GROUPS:
        if key in table and not any(key in item for item in items):
            values = list(table[key])
            for item in items:
                if value := values[place[item["image"]]]:
                    item[key] = value


def _check_labels(items: Sequence[Item], class_names: Sequence[str], path: str | Path) -> None:
    labels = np.array([item["label"] for item in items], dtype=float).reshape(len(items), len(class_names))
    positive, negative = (labels == 1).any(axis=0), (labels == 0).any(axis=0)
    if not (positive & negative).any():
        findings = Counter(name for item in items for name in item["findings"] if item["findings"][name])
        there = ", ".join(name for name, _ in findings.most_common(5)) or "none"
        raise BundleError(
            f"{path}: no class has images with and without it: the classes are {', '.join(class_names)}, "
            f"the most frequent findings {there}"
        )
    for name in np.array(class_names, dtype=object)[~positive]:
        logger.warning("%s: no image has the finding '%s'", path, name)


def join(table: ScoreTable, labels: LabelTable) -> tuple[np.ndarray, list[str], dict[str, dict[str, int | None]]]:
    """Bring the scores into the order of the labels.

    An image is found by its path as both tables have it, and where that finds none, by its file name, if that names one
    image in both.

    Returns:
        scores [N, K] and errors [N] of the N items, and what was left out: rows of scores without labels.

    Raises:
        BundleError: where no image of one table is in the other.
    """
    place = _places(table.names, [item["name"] for item in labels.items])
    if not place:
        raise BundleError(
            f"no image of the scores, such as {table.names[0]}, is among the labels, such as {labels.items[0]['name']}"
        )
    scores = np.full((len(labels.items), len(table.class_names)), math.nan)
    errors = ["no row in the table of scores"] * len(labels.items)
    for row, item in enumerate(labels.items):
        if (found := place.get(item["name"])) is not None:
            scores[row], errors[row] = table.scores[found], table.errors[found]
    surplus = len(table.names) - len(place)
    left_out: dict[str, dict[str, int | None]] = dict(labels.left_out)
    known = sum(counts["images"] or 0 for counts in left_out.values())
    if surplus > known:  # those that were left out before may have scores as well
        left_out["scored, but not in the table of labels"] = {"images": surplus - known, "patients": None}
    return scores, errors, left_out


def _places(names: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """From what an image is called among the labels to its row of scores."""
    plain = {_plain(name): row for row, name in enumerate(names)}
    found = {name: plain[_plain(name)] for name in wanted if _plain(name) in plain}
    if found:
        return found
    ends, own = ([os.path.basename(_plain(name)) for name in group] for group in (names, wanted))
    if len(set(ends)) < len(ends) or len(set(own)) < len(own):
        return {}
    rows = {end: row for row, end in enumerate(ends)}
    found = {name: rows[end] for name, end in zip(wanted, own, strict=True) if end in rows}
    if found:
        logger.info("the paths of the two tables differ: %d images were found by their file names", len(found))
    return found


def _plain(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/"))


def task_of(scores: np.ndarray, items: Sequence[Item]) -> Task:
    """Tell whether classes exclude each other: the scores of each image sum to 1, and no image has two classes."""
    known = scores[np.isfinite(scores).all(axis=1)]
    if known.shape[1] < 2 or any(item["label"].count(1.0) > 1 for item in items):
        return "multilabel"
    return "multiclass" if len(known) and (abs(known.sum(axis=1) - 1) < _SUM).all() else "multilabel"


def read_thresholds(given: str | None, class_names: Sequence[str]) -> dict[str, float] | None:
    """Read thresholds.

    Args:
        given: a JSON object of classes to scores, a file of one, or the ``report.json`` of an evaluation; None: none.
        class_names: names of the classes.

    Raises:
        BundleError: where it is none of these, names an unknown class, or a threshold is no number.
    """
    if given is None:
        return None
    content = given_object(given, "thresholds")
    if isinstance(content.get("operating_points"), Mapping):
        classes = content["operating_points"].get("classes", {})
        content = {name: point["threshold"] for name, point in classes.items()}
    for name, value in content.items():
        if name not in class_names:
            raise BundleError(f"thresholds: '{name}' is no class{nearest(name, class_names)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BundleError(f"thresholds: that of '{name}' is no number: {value!r}")
    return {name: float(value) for name, value in content.items()}
