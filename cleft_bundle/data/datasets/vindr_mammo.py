"""VinDr-Mammo: mammograms with density, BI-RADS assessments and boxes around findings.

Nguyen et al., "VinDr-Mammo: A large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography", Scientific Data 2023, https://physionet.org/content/vindr-mammo. ``breast-level_annotations.csv`` has a
row per image, ``finding_annotations.csv`` a row per finding, and images lie at ``images/<study_id>/<image_id>.dicom``.
"""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import birads
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.datasets.birads import BIRADS_WORDS, DENSITY_WORDS
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import require_one_of
from cleft_bundle.names import plain_name

logger = logging.getLogger(__name__)

#: What can be classed, and the words of its classes.
TARGETS = {
    "density": {code: DENSITY_WORDS[code] for code in (1, 2, 3, 4)},
    "birads": {category: BIRADS_WORDS[category] for category in (1, 2, 3, 4, 5)},
}
#: What the caption template may name.
SLOTS = ("side", "view", "density", "density_words", "birads", "birads_words")

_TABLE = "breast-level_annotations.csv"
_BOXES = "finding_annotations.csv"
_BOX = ("xmin", "ymin", "xmax", "ymax")
_DENSITIES = {f"density {letter}": code for code, letter in enumerate("abcd", start=1)}
_CATEGORIES = {f"bi-rads {category}": category for category in (1, 2, 3, 4, 5)}
_SPLITS = ("train", "test")
_VIEWS = {"cc": "CC", "mlo": "MLO"}


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet, target: str = "density") -> list[Item]:
    """List VinDr-Mammo's images with captions and labels.

    The table names no patients. It has one study per patient, so the study stands for the patient. Density A to D is
    written 1 to 4, as in the other breast sets.

    Left out, and counted in the log: images of other splits, images whose target is unknown or none of the classes,
    images for which no template has a slot to fill, and images without a row. Rows without an image stay in the list,
    with a warning that counts them (:func:`cleft_bundle.data.make_splits` leaves them out).

    Args:
        root: the folder with the tables and ``images/``; images are found wherever they lie below it.
        split: "train" or "test" of the official split; None for every image.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, named by the words of :data:`TARGETS`.
        target: "density" or "birads".

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings`` (the classes, and with 1.0 the findings that boxes mark, in lower case), ``label`` (one-hot, in the
        order of ``prompts.classes``), ``patient_id`` and ``study_id`` (the study's), ``split`` ("train", "test"),
        ``laterality``, ``view`` ("CC", "MLO"), ``density`` (1-4) and ``birads`` (1-5) where known, and where there are
        any ``boxes``, a list of [x, y, width, height] in pixels of the original image from its upper left corner,
        ``box_findings``, the finding of each (a box with two findings stands twice), and ``box_birads``, the category
        of each or None.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    if split is not None:
        require_one_of("split", split, _SPLITS)
    birads.check_target(target, TARGETS, prompts, SLOTS)
    root = Path(root)
    frame = _read(root / _TABLE)
    boxes = _read_boxes(root / _BOXES, set(frame["image_id"])) if (root / _BOXES).is_file() else {}
    tree = FileTree(root)
    frame["name"] = tree.locate(("images/" + frame["study_id"] + "/" + frame["image_id"] + ".dicom").tolist())
    listed = frame if split is None else frame[frame["split"] == split]
    kept = listed[listed[target].map(TARGETS[target]).isin(list(prompts.classes))]
    parts.report_kept(logger, tree.files, frame["name"], kept["name"])
    found = _items(tree.root, kept, boxes, target, prompts)
    logger.info("VinDr-Mammo%s: %d rows, %d items, %d of them with boxes; left out: %d of other splits, "
                "%d without a %s among the classes, %d that nothing captions",
                f" {split}" if split else "", len(frame), len(found), sum("boxes" in item for item in found),
                len(frame) - len(listed), len(listed) - len(kept), target, len(kept) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per image, checked: study_id, image_id, laterality, view, density, birads, split."""
    columns = ["study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density", "split"]
    frame = tables.read_table(path, columns)
    for name in ("study_id", "image_id", "laterality", "split"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["image_id"], path)
    frame["laterality"] = tables.codes(frame["laterality"], path, tables.SIDES)
    frame["view"] = tables.codes(frame["view_position"], path, _VIEWS)
    for name, column, meanings in (
        ("density", "breast_density", _DENSITIES),
        ("birads", "breast_birads", _CATEGORIES),
    ):
        frame[name] = pd.Series(tables.codes(frame[column], path, meanings), index=frame.index, dtype=object)
    frame["split"] = tables.codes(frame["split"], path, tables.SPLITS)
    return frame


def _read_boxes(path: Path, images: set[str]) -> dict[str, list[tuple[list[float], str, int | None]]]:
    """From each image with boxes to a box, a finding and its category; rows without a box have nothing to mark."""
    frame = tables.read_table(path, ["image_id", "finding_categories", *_BOX], ["finding_birads"])
    frame = tables.drop_repeated(frame, path)
    tables.no_gaps(frame["image_id"], path)
    tables.refuse_rows(~frame["image_id"].isin(images), path, f"with an image that {_TABLE} does not have")
    names = frame["finding_categories"].map({text: _categories(text) for text in frame["finding_categories"].unique()})
    tables.refuse_rows(names.isna(), path, "whose finding_categories are no list of names such as ['Mass']")
    boxes = tables.corners(frame, path, _BOX)
    blank = pd.Series("", index=frame.index)
    categories = tables.codes(frame.get("finding_birads", blank), path, _CATEGORIES)
    found: dict[str, list[tuple[list[float], str, int | None]]] = {}
    for image, listed, category, box in zip(frame["image_id"], names, categories, boxes, strict=True):
        if box is not None:
            found.setdefault(image, []).extend((box, name, category) for name in listed)
    return found


def _categories(text: str) -> list[str] | None:
    """Names of a list that is written as Python writes it, in lower case; None where it is no such list."""
    try:
        names = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return None
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return [plain_name(name) for name in names] if good else None


def _items(
    root: str,
    frame: pd.DataFrame,
    boxes: dict[str, list[tuple[list[float], str, int | None]]],
    target: str,
    prompts: PromptSet,
) -> list[Item]:
    studies = {value: pseudonym(value) for value in frame["study_id"].unique()}
    write = parts.caption_writer(prompts)
    found = []
    for row in frame.to_dict("records"):
        details = parts.known(**{key: row[key] for key in ("laterality", "view", "density", "birads")})
        texts = write(birads.words_of(details))
        if not texts:
            continue
        marked = boxes.get(row["image_id"], [])
        findings = birads.one_hot(TARGETS[target][details[target]], prompts)
        findings |= dict.fromkeys([name for _, name, _ in marked], 1.0)
        found.append(
            make_item(
                f"{root}/{row['name']}",
                row["name"],
                texts,
                findings=findings,
                label=parts.labels(findings, prompts),
                patient_id=studies[row["study_id"]],
                split=row["split"],
                details={**details, **_marked(marked)},
            )
        )
    return found


def _marked(marked: list[tuple[list[float], str, int | None]]) -> dict[str, Any]:
    """The keys of an item with boxes; none without."""
    if not marked:
        return {}
    boxes, names, categories = zip(*marked, strict=True)
    return {"boxes": list(boxes), "box_findings": list(names), "box_birads": list(categories)}
