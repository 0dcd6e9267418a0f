"""NIH ChestX-ray14: chest X-rays with 14 findings read from reports.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017,
https://nihcc.app.box.com/v/ChestXray-NIHCC. ``Data_Entry_2017_v2020.csv`` (or ``Data_Entry_2017.csv`` of the first
release) has a row per image: ``Image Index``, ``Finding Labels`` joined by ``|``, ``Patient ID``, ``Patient Age``,
``Patient Gender``, ``View Position``. Two text files name the images of the official split, and a table holds boxes
for some findings of some images.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, nearest, require_one_of
from cleft_bundle.names import plain_name
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: The labelled findings, in the order in which captions name them.
FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural thickening",
    "hernia",
    NO_FINDING,
)
#: What the caption template may name.
SLOTS = ("findings", "view", "sex", "age")
#: Where the images may lie: in one folder, or in those of the twelve archives.
FOLDERS = ("images", "images_*/images", "images_*", ".")

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_BOX = ("Bbox [x", "y", "w", "h]")  # four column names: the header has commas within its brackets
_SPELLINGS = {"infiltrate": "infiltration"}  # the table of boxes
_VIEWS = {"pa": "PA", "ap": "AP"}


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet) -> list[Item]:
    """List the images of ChestX-ray14 with captions and labels.

    The caption names every finding of the row, "no finding" among them; a finding that the row does not name is
    absent. Images are looked for in ``images/`` and ``images_001/images/`` to ``images_012/images/``. Rows without an
    image stay in the list, with a warning that counts them (:func:`cleft_bundle.data.make_splits` leaves them out);
    images without a row are left out and counted.

    Where ``train_val_list.txt`` and ``test_list.txt`` are there, they give the splits "train" and "test"; validation
    is then drawn from the training patients by :func:`cleft_bundle.data.make_splits`. Every image of the table must be
    in one of them. Without the lists, no split is named.

    Args:
        root: the folder with the table and the images.
        split: "train" or "test" of the official split; None for every image.
        prompts: caption template (slots: ``findings``, ``view``, ``sex``, ``age``) and classes, which are findings in
            lower case with spaces (see :data:`FINDINGS`).

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are
        several, ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's:
        the table names no study), ``split``, ``view`` ("AP", "PA"), ``sex`` ("F", "M") and ``age`` (years) where
        known, and where there are any ``boxes``, a list of [x, y, width, height] in pixels of the original image from
        its upper left corner, and ``box_findings``, the finding of each.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    if split is not None:
        require_one_of("split", split, _LISTS)
    prompts.check_classes(FINDINGS, "finding", "ChestX-ray14")
    prompts.check_slots(SLOTS)
    root = Path(root)
    path = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    frame = tables.read_table(
        path, ["Image Index", "Finding Labels", "Patient ID"], ["Patient Age", "Patient Gender", "View Position"]
    )
    for name in ("Image Index", "Finding Labels", "Patient ID"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["Image Index"], path)
    frame["split"] = _splits(root, path, frame["Image Index"])
    if split and frame["split"].isna().all():
        raise BundleError(f"{root}: split='{split}' needs {' and '.join(_LISTS.values())}, which are not there")
    listed = frame if split is None else frame[frame["split"] == split]
    named = _findings(frame["Finding Labels"], path)
    boxes = _boxes(root, dict(zip(frame["Image Index"], frame["Finding Labels"].map(named), strict=True)))
    found = _items(root, path, listed, set(frame["Image Index"]), prompts, named, boxes)
    logger.info("ChestX-ray14%s: %d rows, %d items; left out: %d of other splits, %d that nothing captions",
                f" {split}" if split else "", len(frame), len(found), len(frame) - len(listed),
                len(listed) - len(found))  # fmt: skip
    return found


def _splits(root: Path, path: Path, images: pd.Series) -> pd.Series:
    """The official split of each image: named for all of them, or for none."""
    listed: dict[str, str] = {}
    present = {side: root / name for side, name in _LISTS.items() if (root / name).is_file()}
    if not present:
        return pd.Series([None] * len(images), index=images.index, dtype=object)
    if len(present) < len(_LISTS):
        raise BundleError(f"{root}: expected {' and '.join(_LISTS.values())}, or none of them, found one")
    for side, file in present.items():
        for name in file.read_text(encoding="utf-8-sig").split():
            if listed.setdefault(name, side) != side:
                raise BundleError(f"{file}: image '{name}' is in the other list too")
    splits = images.map(listed)
    if splits.isna().any():
        bad = images[splits.isna()]
        raise BundleError(
            f"{path}: {tables.rows(len(bad))} with an image of neither {' nor '.join(_LISTS.values())}, "
            f"the first is '{bad.iloc[0]}' in row {bad.index[0]}"
        )
    return splits


def _findings(column: pd.Series, path: Path) -> dict[str, tuple[str, ...]]:
    """From each distinct value of a column to its findings in the order of :data:`FINDINGS`."""
    meaning = {}
    for value in column.unique():
        names = {plain_name(part.replace("_", " ")) for part in value.split("|")}
        names = {_SPELLINGS.get(name, name) for name in names}
        bad = column[column == value]
        where = f"{path}: column '{column.name}' holds '{value}' in {tables.rows(len(bad))}, first {bad.index[0]}"
        for name in sorted(names):
            if name not in FINDINGS:
                raise BundleError(f"{where}: '{name}' is no finding of ChestX-ray14{nearest(name, FINDINGS)}")
        if NO_FINDING in names and len(names) > 1:
            raise BundleError(f"{where}: 'No Finding' cannot stand beside a finding")
        meaning[value] = tuple(name for name in FINDINGS if name in names)
    return meaning


def _boxes(root: Path, shown: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list]]:
    """From each image to the keys of its boxes; images of a table of boxes that are not listed have none.

    Args:
        root: the folder with the table of boxes.
        shown: the findings of each image; boxes of another finding are kept, and counted.
    """
    path = root / _BOXES
    if not path.is_file():
        return {}
    frame = tables.drop_repeated(tables.read_table(path, ["Image Index", "Finding Label", *_BOX]), path)
    for name in ("Image Index", "Finding Label"):
        tables.no_gaps(frame[name], path)
    names = _findings(frame["Finding Label"], path)
    for name in _BOX:
        tables.no_gaps(frame[name], path)
        frame[name] = tables.numbers(frame[name], path)
    tables.refuse_rows((frame[_BOX[2]] <= 0) | (frame[_BOX[3]] <= 0), path, "with a box of no area")
    strange = ~frame["Image Index"].isin(list(shown))
    if strange.any():
        logger.warning("%s: %s of images without a row left out, the first is row %s",
                       path.name, tables.rows(int(strange.sum())), strange.idxmax())  # fmt: skip
    frame = frame[~strange]
    other = pd.Series(
        [names[finding][0] not in shown[image]
         for image, finding in zip(frame["Image Index"], frame["Finding Label"], strict=True)],
        index=frame.index, dtype=bool,
    )  # fmt: skip
    if other.any():
        logger.warning("%s: %s with a box of a finding that the image does not have, the first is row %s",
                       path.name, tables.rows(int(other.sum())), other.idxmax())  # fmt: skip
    found: dict[str, dict[str, list]] = {}
    for image, finding, *box in frame[["Image Index", "Finding Label", *_BOX]].itertuples(index=False):
        keys = found.setdefault(image, {"boxes": [], "box_findings": []})
        keys["boxes"].append(box)
        keys["box_findings"].append(names[finding][0])
    return found


def _items(
    root: Path,
    path: Path,
    frame: pd.DataFrame,
    rows: set[str],
    prompts: PromptSet,
    named: Mapping[str, tuple[str, ...]],
    boxes: Mapping[str, dict[str, list]],
) -> list[Item]:
    files = parts.image_files(root, FOLDERS)
    parts.report_images(logger, rows, files)
    folder, write = str(root.absolute()), parts.caption_writer(prompts)
    flags = {value: {name: float(name in names) for name in FINDINGS} for value, names in named.items()}
    patients = {value: pseudonym(value) for value in frame["Patient ID"].unique()}
    found = []
    for image, value, patient, split, detail in zip(
        frame["Image Index"], frame["Finding Labels"], frame["Patient ID"], frame["split"], _details(frame, path),
        strict=True,
    ):  # fmt: skip
        texts = write({**parts.words_of(detail), "findings": describe_findings(named[value])})
        if not texts:
            continue
        name = files.get(image, f"{FOLDERS[0]}/{image}")
        found.append(
            make_item(
                f"{folder}/{name}",
                name,
                texts,
                findings=flags[value].copy(),
                label=parts.labels(flags[value], prompts),
                patient_id=patients[patient],
                split=split,
                details={**detail, **boxes.get(image, {})},
            )
        )
    return found


def _details(frame: pd.DataFrame, path: Path) -> list[dict[str, Any]]:
    """View, sex and age of each row, without what is unknown."""
    blank = pd.Series("", index=frame.index)
    views = tables.codes(frame.get("View Position", blank), path, _VIEWS)
    sexes = tables.codes(frame.get("Patient Gender", blank), path, tables.SEXES)
    ages = tables.ages(frame.get("Patient Age", blank), path).tolist()
    return [parts.known(view=v, sex=s, age=a) for v, s, a in zip(views, sexes, ages, strict=True)]
