"""CMMD, the Chinese Mammography Database: mammograms with what biopsy found.

Cui et al., "The Chinese Mammography Database (CMMD)", The Cancer Imaging Archive 2021,
https://doi.org/10.7937/tcia.eqde-4b16. ``CMMD_clinicaldata_revision.xlsx`` has a row per breast with a finding:
``ID1``, ``LeftRight``, ``Age``, ``number``, ``abnormality``, ``classification``, ``subtype``. It names no file: side
and view of an image are read from its DICOM header.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import birads
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.data.dicom.views import DESCRIPTION
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.progress import LONG, bar

logger = logging.getLogger(__name__)

#: What a breast may show, in the order in which captions name it.
ABNORMALITIES = ("mass", "calcification")
#: What biopsy found, and the words of the classes.
PATHOLOGIES = ("benign", "malignant")
#: Molecular subtypes of the second part of the set, as ``findings`` name them.
SUBTYPES = tuple(f"subtype: {name}" for name in ("luminal a", "luminal b", "her2-enriched", "triple negative"))
#: What the caption template may name.
SLOTS = ("side", "view", "age", "findings", "pathology", "subtype")

_TABLES = ("CMMD_clinicaldata_revision", "CMMD_clinicaldata", "clinicaldata")
_KINDS = {"mass": ("mass",), "calcification": ("calcification",), "both": ABNORMALITIES}
_SUBTYPE = "subtype: "
_SUFFIXES = (".dcm", ".dicom", "")


@dataclass(frozen=True)
class _Breast:
    """What the table says of a breast."""

    patient: str
    findings: tuple[str, ...]
    pathology: str | None
    subtype: str | None
    age: float | None
    number: int


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet) -> list[Item]:
    """List CMMD's images with captions and labels: one header read an image.

    An image is that of the breast whose patient and side its header names; where the header names no patient, the
    folder that is called by one counts. Where a breast has several rows, it shows what any of them says, and is
    malignant if one is; they are counted.

    Left out, and counted in the log: images of no known patient or side, images of a breast without a row (of many
    patients one breast has one), images whose pathology is unknown or none of the classes, images for which no template
    has a slot to fill, and files that are no DICOM. Breasts with fewer images than ``number`` says are counted as not
    there: a partial download is listed as far as it goes.

    Args:
        root: the folder with the table, as it comes or saved as CSV, and the images, wherever they lie below it.
        split: None; CMMD names no split.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, which are :data:`PATHOLOGIES`.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings`` (the classes, 1.0 or 0.0 for each of :data:`ABNORMALITIES`, 1.0 for one of :data:`SUBTYPES`),
        ``label`` (one-hot, in the order of ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's),
        ``split`` (None), ``laterality``, ``pathology``, and where known ``view`` and ``age`` (years).

    Raises:
        BundleError: an argument, the table, a column or a value is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': CMMD names no split; expected None")
    prompts.check_classes(PATHOLOGIES, "pathology", "CMMD")
    prompts.check_slots(SLOTS)
    root = Path(root)
    breasts = _read(_table(root))
    tree = FileTree(root)
    left_out: Counter[str] = Counter()
    images = list(_images(tree, breasts, left_out))
    present = Counter(breast for _, breast, _ in images)
    short = sum(max(0, told.number - present[breast]) for breast, told in breasts.items())
    if short:
        logger.warning("%d images of the table's breasts are not there", short)
    kept = [image for image in images if breasts[image[1]].pathology in prompts.classes]
    left_out["of a pathology that is unknown or no class"] = len(images) - len(kept)
    found = parts.list_items(tree.root, _rows(kept, breasts, prompts), prompts)
    left_out["that nothing captions"] = len(kept) - len(found)
    logger.info("CMMD: %d breasts, %d items; left out: %s", len(breasts), len(found),
                ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "none")  # fmt: skip
    return found


def _table(root: Path) -> Path:
    """The clinical table, saved as CSV or as it comes."""
    places = [root / f"{name}{suffix}" for suffix in (".csv", ".xlsx") for name in _TABLES]
    return next((path for path in places if path.is_file()), places[len(_TABLES)])


def _read(path: Path) -> dict[tuple[str, str], _Breast]:
    """The breasts by pseudonym of the patient and side."""
    required = ["ID1", "LeftRight", "classification"]
    frame = tables.read_table(path, required, ["Age", "number", "abnormality", "subtype"])
    frame = tables.drop_repeated(frame, path)
    for name in ("ID1", "LeftRight"):
        tables.no_gaps(frame[name], path)
    blank = pd.Series("", index=frame.index)
    subtypes = {name.removeprefix(_SUBTYPE): name for name in SUBTYPES}
    columns = zip(
        frame["ID1"],
        tables.codes(frame["LeftRight"], path, tables.SIDES),
        tables.codes(frame.get("abnormality", blank), path, _KINDS),
        tables.codes(frame["classification"], path, {name: name for name in PATHOLOGIES}),
        tables.codes(frame.get("subtype", blank), path, subtypes),
        tables.ages(frame.get("Age", blank), path).astype(object).where(lambda age: age.notna(), None),
        tables.numbers(frame.get("number", blank), path).fillna(0).astype(int),
        strict=True,
    )
    found: dict[tuple[str, str], _Breast] = {}
    for patient, side, kinds, pathology, subtype, age, number in columns:
        key = (pseudonym(patient), str(side))
        row = _Breast(patient, tuple(kinds or ()), pathology, subtype, age, number)
        found[key] = _joined(found[key], row) if key in found else row
    if several := len(frame) - len(found):
        logger.warning("%s: %s more than breasts: what several say of one is put together", path.name,
                       tables.rows(several))  # fmt: skip
    return found


def _joined(first: _Breast, second: _Breast) -> _Breast:
    """What two rows say of one breast."""
    shown = {*first.findings, *second.findings}
    said = {first.pathology, second.pathology}
    return _Breast(
        first.patient,
        tuple(name for name in ABNORMALITIES if name in shown),
        next((name for name in reversed(PATHOLOGIES) if name in said), None),
        first.subtype or second.subtype,
        first.age if first.age is not None else second.age,
        max(first.number, second.number),
    )


def _images(
    tree: FileTree, breasts: Mapping[tuple[str, str], _Breast], left_out: Counter[str]
) -> Iterator[tuple[str, tuple[str, str], str]]:
    """Path, breast and view of each image of a breast in the table; others are counted."""
    folders = {breast.patient.lower(): patient for (patient, _), breast in breasts.items()}
    files = [file for file in tree.files if PurePosixPath(file).suffix.lower() in _SUFFIXES]
    for file in bar(files, "reading headers", "image", hidden=len(files) < LONG):
        try:
            ds = dicom_header.read_header(f"{tree.root}/{file}", pixels=False)
        except Exception as error:  # whatever a file that is no DICOM makes pydicom raise
            logger.debug("%s: %s", file, type(error).__name__)
            ds = None
        said = dicom_header.describe(ds) if ds else {"patient": "", "laterality": "", "modality": ""}
        if not said["modality"]:
            left_out["files that are no DICOM image"] += 1
            continue
        owners = (folders[part.lower()] for part in PurePosixPath(file).parts[:-1] if part.lower() in folders)
        patient = said["patient"] or next(owners, "")
        side = "" if said["laterality_source"] == DESCRIPTION else said["laterality"]
        if not patient or side not in ("L", "R"):
            left_out["of no known patient or side"] += 1
        elif (patient, side) not in breasts:
            left_out["of a breast without a row"] += 1
        else:
            yield file, (patient, side), "" if said["view_source"] == DESCRIPTION else said["view"]


def _rows(
    images: list[tuple[str, tuple[str, str], str]], breasts: Mapping[tuple[str, str], _Breast], prompts: PromptSet
) -> Iterator[parts.Row]:
    for file, key, view in images:
        breast = breasts[key]
        known: dict[str, Any] = parts.known(laterality=key[1], view=view, age=breast.age, pathology=breast.pathology)
        subtype = {breast.subtype: 1.0} if breast.subtype else {}
        yield parts.Row(
            file,
            {
                **birads.words_of(known),
                "findings": describe_findings(breast.findings),
                "subtype": (breast.subtype or "").removeprefix(_SUBTYPE),
            },
            birads.one_hot(str(breast.pathology), prompts)
            | {name: float(name in breast.findings) for name in ABNORMALITIES if breast.findings}
            | subtype,
            breast.patient,
            details=known,
        )
