"""VinDr-CXR: chest X-rays with findings and boxes by several radiologists.

Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations", Scientific Data 2022,
https://physionet.org/content/vindr-cxr. ``image_labels_train.csv`` has a row per image and reader, three readers an
image, and ``image_labels_test.csv`` one row per image, on which five agreed; both have 28 columns of 0 and 1.
``annotations_train.csv`` and ``annotations_test.csv`` have a row per box. The challenge at Kaggle has the training
images with 14 of the findings in one table of boxes, ``train.csv``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.names import plain_name
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: Findings that the challenge's table has, in the order in which captions name them.
CHALLENGE = (
    *("aortic enlargement", "atelectasis", "calcification", "cardiomegaly", "consolidation", "ild", "infiltration"),
    *("lung opacity", "nodule/mass", "other lesion", "pleural effusion", "pleural thickening", "pneumothorax"),
    "pulmonary fibrosis",
)
#: The labelled findings, in the order in which captions name them.
FINDINGS = (
    *CHALLENGE,
    *("clavicle fracture", "edema", "emphysema", "enlarged pa", "lung cavity", "lung cyst", "mediastinal shift"),
    *("rib fracture", "copd", "lung tumor", "pneumonia", "tuberculosis", "other disease"),
    NO_FINDING,
)
#: How the readings of an image become one.
READERS = ("majority", "any", "all")
#: What the caption template may name.
SLOTS = ("findings",)

_SPLITS = ("train", "test")
_FOLDERS = ("annotations", ".")
_CHALLENGE_TABLE = "train.csv"
_BOX = ("x_min", "y_min", "x_max", "y_max")
_SPELLINGS = {"other diseases": "other disease"}  # the table of the training images
_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
_CSV = ".csv"


def datalist(
    root: str | Path, split: str | None = None, *, prompts: PromptSet, readers: str = "majority"
) -> list[Item]:
    """List VinDr-CXR's images with captions and labels.

    Several readings of an image become one by ``readers``. "no finding" is present where most readers say so and no
    finding is present; where the readers found different things, an image may have neither. Boxes of findings that are
    not present in the end are left out, and counted. The set names no patient: each image counts as one.

    Left out, and counted in the log: images of other splits, images without a finding that is present, and images
    without a row. Rows without an image stay in the list, with a warning that counts them
    (:func:`cleft_bundle.data.make_splits` leaves them out).

    Args:
        root: the folder with the tables, or with ``annotations/`` that holds them, and the images, wherever they lie
            below it; of one split alone, too.
        split: "train" or "test" of the official split; None for every image.
        prompts: caption template (slot: ``findings``) and classes, which are findings in lower case
            (:data:`FINDINGS`, of the challenge's table :data:`CHALLENGE` and "no finding").
        readers: what makes a finding present: "majority" of the readers, "any" of them, or "all".

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id`` and ``study_id`` (the image's), ``split``
        (None for the challenge's table), and where there are any ``boxes``, a list of [x, y, width, height] in pixels
        of the original image from its upper left corner, and ``box_findings``, the finding of each; every reader's box
        is one.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    require_one_of("readers", readers, READERS)
    if split is not None:
        require_one_of("split", split, _SPLITS)
    prompts.check_classes(FINDINGS, "finding", "VinDr-CXR")
    prompts.check_slots(SLOTS)
    root = Path(root)
    votes, boxes = _read_all(root, split)
    present = _agree(votes, readers)
    tree = FileTree(root)
    names = _locate(tree, votes["split"].groupby(level=0).first())
    rows = list(_rows(present, boxes, names))
    parts.report_images(logger, set(names.values()), tree.files)
    found = parts.list_items(tree.root, rows, prompts)
    kept = sum(len(item.get("boxes", ())) for item in found)
    total = sum(map(len, boxes.values()))
    logger.info("VinDr-CXR%s: %d readings, %d images, %d items with %d boxes; left out: %d images without a finding "
                "that is present, %d boxes of findings that are not",
                f" {split}" if split else "", len(votes), len(present), len(found), kept, len(present) - len(found),
                total - kept)  # fmt: skip
    return found


def _read_all(root: Path, split: str | None) -> tuple[pd.DataFrame, dict[str, list[tuple[str, list[float]]]]]:
    """One row per image and reader, of all splits that are there, and the boxes of each image."""
    places = {side: _find(root, f"image_labels_{side}{_CSV}") for side in _SPLITS if split in (None, side)}
    frames: list[pd.DataFrame] = []
    boxes: dict[str, list[tuple[str, list[float]]]] = {}
    for side, path in places.items():
        if path:
            frames.append(_read_labels(path, side))
            table = path.with_name(f"annotations_{side}{_CSV}")
            boxes |= _read_boxes(table, frames[-1])[0] if table.is_file() else {}
    if frames:
        return pd.concat(frames), boxes
    challenge = root / _CHALLENGE_TABLE
    if split is None and challenge.is_file():
        marked, votes = _read_boxes(challenge, None)
        return votes, marked
    raise BundleError(f"{root}: found no table {' or '.join(f'image_labels_{side}{_CSV}' for side in places)}")


def _find(root: Path, name: str) -> Path | None:
    return next((path for folder in _FOLDERS if (path := root / folder / name).is_file()), None)


def _read_labels(path: Path, split: str) -> pd.DataFrame:
    """Votes of 1 and 0, a column per finding, indexed by image, and the split."""
    frame = tables.drop_repeated(tables.read_table(path, ["image_id"], None), path)
    tables.no_gaps(frame["image_id"], path)
    header = [str(name) for name in frame]
    columns = {name: _name(name) for name in header if name.lower() not in ("image_id", "rad_id")}
    strange = [column for column, name in columns.items() if name not in FINDINGS]
    missing = [name for name in FINDINGS if name not in columns.values()]
    if strange or missing:
        raise BundleError(
            f"{path}: expected a column per finding; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(strange) or 'none'}"
        )
    reader = next((frame[name] for name in header if name.lower() == "rad_id"), pd.Series("", index=frame.index))
    tables.no_duplicates((frame["image_id"] + " " + reader).str.strip().rename("image_id"), path,
                         "expected one row per image and reader")  # fmt: skip
    votes = {name: tables.numbers(frame[column], path, allowed=(0, 1)) for column, name in columns.items()}
    read = pd.DataFrame(votes, index=frame.index)
    if gaps := int(read.isna().to_numpy().sum()):
        logger.warning("%s: %d empty labels are unknown", path.name, gaps)
    tables.refuse_rows((read[NO_FINDING] == 1) & (read.drop(columns=NO_FINDING) == 1).any(axis=1), path,
                       "with 'No finding' beside a finding")  # fmt: skip
    return read.assign(split=split).set_index(frame["image_id"])


def _name(text: str) -> str:
    name = plain_name(text)
    return _SPELLINGS.get(name, name)


def _read_boxes(
    path: Path, votes: pd.DataFrame | None
) -> tuple[dict[str, list[tuple[str, list[float]]]], pd.DataFrame]:
    """The boxes of each image, and what each reader marked, as votes; with votes of another table, those images only.

    A reader's boxes of one finding are one vote.
    """
    frame = tables.read_table(path, ["image_id", "class_name", *_BOX], ["rad_id", "rad_ID"])
    frame = tables.drop_repeated(frame, path)
    for name in ("image_id", "class_name"):
        tables.no_gaps(frame[name], path)
    names = frame["class_name"].map(_name)
    unknown = ~names.isin(FINDINGS)
    tables.refuse_rows(unknown, path, f"with an unknown class_name such as '{next(iter(names[unknown]), '')}'")
    if votes is not None:
        tables.refuse_rows(~frame["image_id"].isin(votes.index), path, "with an image that the labels do not have")
    corners = tables.corners(frame, path, _BOX)
    without = pd.Series([box is None for box in corners], index=frame.index)
    tables.refuse_rows(without & (names != NO_FINDING), path, "with a finding and no box")
    tables.refuse_rows(~without & (names == NO_FINDING), path, "with a box and no finding")
    boxes: dict[str, list[tuple[str, list[float]]]] = {}
    for image, name, box in zip(frame["image_id"], names, corners, strict=True):
        if box is not None:
            boxes.setdefault(image, []).append((name, box))
    if votes is not None:
        return boxes, votes
    reader = next((frame[name] for name in ("rad_id", "rad_ID") if name in frame), pd.Series("", index=frame.index))
    marked = pd.crosstab([frame["image_id"], reader.rename("rad_id")], names).clip(upper=1)
    marked = marked.reindex(columns=[*CHALLENGE, NO_FINDING], fill_value=0).droplevel("rad_id")
    return boxes, marked.astype(float).assign(split=None)


def _agree(votes: pd.DataFrame, readers: str) -> pd.DataFrame:
    """1.0, 0.0 or NaN for each finding, indexed by image in the table's order; and its split."""
    share = votes.drop(columns="split").groupby(level=0, sort=False).mean()
    present = {"majority": share > 0.5, "any": share > 0, "all": share == 1}[readers].copy()
    present[NO_FINDING] = (share[NO_FINDING] > 0.5) & ~present.drop(columns=NO_FINDING).any(axis=1)
    return present.astype(float).where(share.notna()).assign(split=votes["split"].groupby(level=0).first())


def _locate(tree: FileTree, splits: pd.Series) -> dict[str, str]:
    """From each image to its file, or to what it should be called."""
    by_stem: dict[str, list[str]] = {}
    for file, name in tree.files.items():
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in _SUFFIXES:
            by_stem.setdefault(stem, []).append(file)
    return {
        image: next(iter(by_stem.get(image, ())), f"{split or 'train'}/{image}{_SUFFIXES[0]}")
        for image, split in zip(splits.index, splits, strict=True)
    }


def _rows(
    present: pd.DataFrame, boxes: Mapping[str, Sequence[tuple[str, list[float]]]], names: Mapping[str, str]
) -> Iterator[parts.Row]:
    columns = [name for name in FINDINGS if name in present]
    for image, split, values in zip(
        present.index, present["split"], present[columns].to_numpy(dtype=float).tolist(), strict=True
    ):
        findings = parts.known(**dict(zip(columns, values, strict=True)))
        marked = [(name, box) for name, box in boxes.get(image, ()) if findings.get(name)]
        yield parts.Row(
            names[image],
            {"findings": describe_findings(name for name, value in findings.items() if value)},
            findings,
            image,
            split=split,
            details=parts.boxes(marked),
        )
