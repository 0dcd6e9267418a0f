"""RSNA Pneumonia Detection Challenge: chest X-rays with boxes around opacities that suggest pneumonia.

Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
Pneumonia", Radiology: Artificial Intelligence 2019, https://www.kaggle.com/c/rsna-pneumonia-detection-challenge.
``stage_2_train_labels.csv`` has a row per box, or one row without a box: ``patientId``, ``x``, ``y``, ``width``,
``height``, ``Target``. ``stage_2_detailed_class_info.csv`` tells normal images from those with another abnormality.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.data.dicom.views import DESCRIPTION
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.progress import LONG, bar
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

PNEUMONIA, OTHER = "pneumonia", "other abnormality"
#: What an image may show; exactly one of them.
FINDINGS = (PNEUMONIA, NO_FINDING, OTHER)
#: What the caption template may name; the last three are known where the headers are read.
SLOTS = ("findings", "view", "sex", "age")

_TABLE = "stage_2_train_labels.csv"
_CLASS_TABLE = "stage_2_detailed_class_info.csv"
_FOLDER = "stage_2_train_images"
_BOX = ("x", "y", "width", "height")
_CLASSES = {
    "lung opacity": PNEUMONIA,
    "normal": NO_FINDING,
    "no lung opacity / not normal": OTHER,
}


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet, headers: bool = False) -> list[Item]:
    """List the challenge's training images with captions and labels (its test images have no public labels).

    Target 1 is "pneumonia". Target 0 is "no finding", unless ``stage_2_detailed_class_info.csv`` is there and calls
    the image "No Lung Opacity / Not Normal": then it is "other abnormality", a finding of its own, and neither
    pneumonia nor "no finding". A caption that calls such an image one without finding would not be true.

    Rows without an image stay in the list, with a warning that counts them
    (:func:`cleft_bundle.data.make_splits` leaves them out); images without a row are left out and
    counted.

    Args:
        root: the folder with the tables and ``stage_2_train_images/``.
        split: None; the challenge names no split of its labelled images.
        prompts: caption template (slots: ``findings``, ``view``, ``sex``, ``age``) and classes (see
            :data:`FINDINGS`).
        headers: read view, sex and age from the DICOM headers: one file opened an image.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are
        several, ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's:
        there is one image of each), ``split`` (None), with ``headers`` also ``view``, ``sex`` and ``age`` where
        known, and where there are any ``boxes``, a list of [x, y, width, height] in pixels of the original image from
        its upper left corner, and ``box_findings``, the finding of each.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described, or rows contradict each other;
            names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': the challenge names no split; expected None")
    prompts.check_classes(FINDINGS, "finding", "the RSNA challenge")
    prompts.check_slots(SLOTS)
    root = Path(root)
    frame = _read(root / _TABLE)
    shown = frame.groupby("patientId", sort=False)["Target"].first().map({1.0: PNEUMONIA, 0.0: NO_FINDING})
    if (root / _CLASS_TABLE).is_file():
        shown = _detailed(root / _CLASS_TABLE, shown)
    found = _items(root, shown, _boxes(frame), prompts, headers=headers)
    logger.info("RSNA: %d rows, %d images, %d items: %s; left out: %d that nothing captions",
                len(frame), len(shown), len(found),
                ", ".join(f"{count} {name}" for name, count in shown.value_counts().items()),
                len(shown) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per box, checked: patientId, Target, x, y, width, height."""
    frame = tables.read_table(path, ["patientId", *_BOX, "Target"])
    for name in ("patientId", "Target"):
        tables.no_gaps(frame[name], path)
    for name in (*_BOX, "Target"):
        frame[name] = tables.numbers(frame[name], path, allowed=(0, 1) if name == "Target" else None)
    box = frame[list(_BOX)]
    targets = frame.groupby("patientId")["Target"]
    for bad, what in (
        (frame.duplicated(), "that repeat an earlier row"),
        (box.isna().any(axis=1) & box.notna().any(axis=1), "with a part of a box"),
        ((frame["Target"] == 0) & box.notna().all(axis=1), "with a box and Target 0"),
        ((frame["Target"] == 1) & box.isna().all(axis=1), "with Target 1 and no box"),
        ((box["width"] <= 0) | (box["height"] <= 0), "with a box of no area"),
        (targets.transform("min") != targets.transform("max"), "whose patient has both Target 0 and 1"),
    ):
        tables.refuse_rows(bad, path, what)
    return frame


def _detailed(path: Path, shown: pd.Series) -> pd.Series:
    """What each image shows by the table of classes, which must agree with the boxes."""
    frame = tables.read_table(path, ["patientId", "class"])
    for name in ("patientId", "class"):
        tables.no_gaps(frame[name], path)
    frame["class"] = tables.codes(frame["class"], path, _CLASSES)
    by_boxes = frame["patientId"].map(shown)
    tables.refuse_rows(by_boxes.isna(), path, f"with a patient that {_TABLE} does not have")
    tables.refuse_rows(
        (frame["class"] == PNEUMONIA) != (by_boxes == PNEUMONIA), path, f"that contradict Target in {_TABLE}"
    )
    kinds = frame.groupby("patientId")["class"]
    tables.refuse_rows(kinds.transform("nunique") > 1, path, "whose patient has several classes")
    detailed = kinds.first().reindex(shown.index)
    if detailed.isna().any():
        raise BundleError(f"{path}: {detailed.isna().sum()} of {len(shown)} patients of {_TABLE} have no row")
    return detailed


def _boxes(frame: pd.DataFrame) -> dict[str, list[list[float]]]:
    """From each patient with boxes to the boxes."""
    found: dict[str, list[list[float]]] = {}
    for patient, *box in frame.loc[frame["Target"] == 1, ["patientId", *_BOX]].itertuples(index=False):
        found.setdefault(patient, []).append(box)
    return found


def _items(
    root: Path, shown: pd.Series, boxes: dict[str, list[list[float]]], prompts: PromptSet, *, headers: bool
) -> list[Item]:
    patients = [str(patient) for patient in shown.index]
    files = parts.image_files(root, [_FOLDER])
    parts.report_images(logger, {f"{patient}.dcm" for patient in patients}, files)
    folder, write = str(root.absolute()), parts.caption_writer(prompts)
    flags = {value: {name: float(name == value) for name in FINDINGS} for value in FINDINGS}
    found = []
    details = _read_headers(f"{folder}/{_FOLDER}", [p for p in patients if f"{p}.dcm" in files] if headers else [])
    for patient, value in zip(patients, shown, strict=True):
        name = f"{_FOLDER}/{patient}.dcm"
        detail = details.get(patient, {})
        texts = write({**parts.words_of(detail), "findings": value})
        if not texts:
            continue
        marked = boxes.get(patient, [])
        drawn = {"boxes": marked, "box_findings": [PNEUMONIA] * len(marked)} if marked else {}
        found.append(
            make_item(
                f"{folder}/{name}",
                name,
                texts,
                findings=flags[value].copy(),
                label=parts.labels(flags[value], prompts),
                patient_id=pseudonym(patient),
                details={**detail, **drawn},
            )
        )
    return found


def _read_headers(folder: str, patients: list[str]) -> dict[str, dict[str, Any]]:
    """View, sex and age from the header of each patient's image, without what is unknown or guessed."""
    details = {}
    for patient in bar(patients, "reading headers", "image", hidden=len(patients) < LONG):
        ds = dicom_header.read_header(f"{folder}/{patient}.dcm", pixels=False)
        said = dicom_header.describe(ds)
        view = "" if said["view_source"] == DESCRIPTION else said["view"]
        details[patient] = parts.known(view=view, **dicom_header.describe_person(ds))
    return details
