"""SIIM-ACR pneumothorax: chest X-rays with masks of pneumothoraces.

https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation. ``train-rle.csv`` has a row per mask: ``ImageId`` and
``EncodedPixels``, run lengths, or -1 where there is no pneumothorax. The images come from NIH ChestX-ray14.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.images.run_lengths import box_of, relative_mask
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

PNEUMOTHORAX, NO_PNEUMOTHORAX = "pneumothorax", "no pneumothorax"
#: What an image may show; exactly one of them.
FINDINGS = (PNEUMOTHORAX, NO_PNEUMOTHORAX)
#: What the caption template may name.
SLOTS = ("findings",)
#: Rows and columns of every image.
SHAPE = (1024, 1024)

_TABLES = ("train-rle.csv", "siim-pneumothorax-train-rle.csv", "stage_2_train.csv")
_NONE = "-1"
_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet) -> list[Item]:
    """List the challenge's training images with captions, labels and boxes.

    An image has a row for each of its masks. A box is that around a mask. The challenge names no patient: each image
    counts as one. Rows without an image stay in the list, with a warning that counts them
    (:func:`cleft_bundle.data.make_splits` leaves them out); images without a row are left out and counted. A row that
    repeats an earlier one is passed over, and counted.

    Args:
        root: the folder with the table and the images, wherever they lie below it.
        split: None; the challenge names no split of its labelled images.
        prompts: caption template (slot: ``findings``) and classes (see :data:`FINDINGS`).

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id`` and ``study_id`` (the image's), ``split``
        (None), and where there are any ``boxes``, a list of [x, y, width, height] in pixels of an image of
        1024 x 1024 from its upper left corner, and ``box_findings``, "pneumothorax" for each.

    Raises:
        BundleError: an argument, the table, a column or a value is not as described, or an image has -1 beside a mask;
            names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': the challenge names no split; expected None")
    prompts.check_classes(FINDINGS, "finding", "the SIIM-ACR challenge")
    prompts.check_slots(SLOTS)
    root = Path(root)
    path = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    frame = _read(path)
    tree = FileTree(root)
    names = _locate(tree, frame["ImageId"].unique().tolist())
    parts.report_images(logger, set(names.values()), tree.files)
    rows = []
    for image, boxes in frame.groupby("ImageId", sort=False)["box"].agg(list).to_dict().items():
        marked = [(PNEUMOTHORAX, box) for box in boxes if box is not None]
        shown = PNEUMOTHORAX if marked else NO_PNEUMOTHORAX
        flags = {name: float(name == shown) for name in FINDINGS}
        rows.append(parts.Row(names[str(image)], {"findings": shown}, flags, str(image), details=parts.boxes(marked)))
    found = parts.list_items(tree.root, rows, prompts)
    logger.info("SIIM-ACR: %d rows, %d images, %d items, %d with a pneumothorax; left out: %d that nothing captions",
                len(frame), len(rows), len(found), sum("boxes" in item for item in found),
                len(rows) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per mask: ImageId, and the box around it, or None."""
    frame = tables.drop_repeated(tables.read_table(path, ["ImageId", "EncodedPixels"]), path)
    for name in frame:
        tables.no_gaps(frame[name], path)
    empty = frame["EncodedPixels"] == _NONE
    of_image = empty.groupby(frame["ImageId"])
    tables.refuse_rows(of_image.transform("any") & ~of_image.transform("all"), path,
                       "whose image has both -1 and a mask")  # fmt: skip
    boxes = []
    for row, text in zip(frame.index, frame["EncodedPixels"], strict=True):
        try:
            boxes.append(None if text == _NONE else box_of(relative_mask(text, SHAPE)))
        except BundleError as error:
            raise BundleError(f"{path}, row {row}: column 'EncodedPixels': {error}") from error
    return frame.assign(box=pd.Series(boxes, index=frame.index, dtype=object))


def _locate(tree: FileTree, images: list[str]) -> dict[str, str]:
    """From each image to its file, or to what it should be called."""
    by_stem: dict[str, str] = {}
    for file, name in tree.files.items():
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in _SUFFIXES:
            by_stem.setdefault(stem, file)
    return {image: by_stem.get(image, f"dicom-images-train/{image}{_SUFFIXES[0]}") for image in images}
