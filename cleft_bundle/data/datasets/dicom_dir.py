"""A folder of DICOM files without a table, such as a PACS export: items from the headers alone.

Files are known by their preamble (PS3.10 section 7.1), whatever they and their folders are called, and a DICOMDIR is
neither needed nor read. Folders and files of an export often carry the names of patients, so an item is named by
pseudonyms and no message shows a file's name.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.data.dicom.upright import upright_turn
from cleft_bundle.data.dicom.views import DESCRIPTION
from cleft_bundle.data.image_lists import list_images
from cleft_bundle.data.images.turns import NOT_GIVEN, UNKNOWN
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, require_some_of
from cleft_bundle.progress import LONG, bar

logger = logging.getLogger(__name__)

#: Modalities that are kept (PS3.3 C.7.3.1.1.1); secondary captures say which of them they were taken from.
MODALITIES = ("CR", "DX", "MG", "RG", "XC")
#: Words of the views. Each is a finding of its own, so that views can be classes where nothing else is labelled.
VIEW_WORDS = {
    "AP": "anteroposterior",
    "PA": "posteroanterior",
    "LATERAL": "lateral",
    "CC": "craniocaudal",
    "MLO": "mediolateral oblique",
    "ML": "mediolateral",
    "LM": "lateromedial",
    "LMO": "lateromedial oblique",
    "XCCL": "laterally exaggerated craniocaudal",
    "XCCM": "medially exaggerated craniocaudal",
    "SIO": "superolateral to inferomedial oblique",
    "ISO": "inferomedial to superolateral oblique",
    "FB": "from below",
}
#: What the caption template may name; ``findings`` come from the table of labels.
SLOTS = ("modality", "view", "side", "sex", "age", "findings")

#: What is left out unless told otherwise: images that are no plain view of the whole organ, and copies of one image.
EXCLUDED = ("specimen", "implant", "partial", "magnification", "spot", "synthesised", "duplicate")

# What ``exclude`` may name, in the words of the log
_LEFT_OUT = {
    "specimen": "of specimens",
    "implant": "with a breast implant",
    "partial": "of a part of the organ",
    "magnification": "magnified views",
    "spot": "spot compression views",
    "synthesised": "synthesised from a tomosynthesis",
    "contradiction": "whose view contradicts PatientOrientation",
    "duplicate": "second copies",
}
_MODALITY_WORDS = {"MG": "mammogram"}
_UID = "sop_instance_uid"
_SHOWN = (
    *("modality", "view", "view_source", "laterality", "laterality_source", "traits", "orientation", "sex", "age"),
    "manufacturer",
)


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    modalities: str | Collection[str] = MODALITIES,
    exclude: str | Collection[str] | None = EXCLUDED,
    table: str = "labels.csv",
) -> list[Item]:
    """List the radiographs below a folder with what their headers say.

    Left out, and counted in the log: files without DICOM's preamble, files that cannot be read, objects without an
    image (reports, presentation states), images of other modalities, of several frames or FOR PROCESSING (the reader
    refuses both unless told otherwise), what ``exclude`` names, and what no template captions. Links are followed, and
    a file counts once.

    A view or side that is guessed from a description (:mod:`cleft_bundle.data.dicom.views`) stands in the item with
    its source, and in no caption, finding or label.

    A table of labels may lie in the folder: the column ``sop_instance_uid``, or ``image`` with the path below the
    folder or the bare file name, and ``finding`` with one name or several joined by ``|``. An image with a row has
    every finding that it names and no other; an image without one has unknown findings.

    Args:
        root: the folder.
        split: None; headers name no split.
        prompts: caption template (slots: ``modality``, ``view``, ``side``, ``sex``, ``age``, ``findings``) and
            classes: words of :data:`VIEW_WORDS`, or findings of the table, in lower case.
        modalities: what to keep.
        exclude: what to leave out: traits of :func:`cleft_bundle.data.dicom.views.traits_of`, and "duplicate", every
            file of a SOP instance of a study but the first in the order of their paths; None for nothing. What stays
            has them in ``traits``.
        table: file name of the table of labels; it need not be there.

    Returns:
        One item per image: ``image``, ``name`` (pseudonyms of patient, study and instance), ``caption``, ``captions``
        where there are several, ``findings``, ``label`` (order of ``prompts.classes``; the views of an image of
        unknown view are NaN), ``patient_id`` (the study's where there is none), ``study_id``, ``split`` (None),
        ``modality``, and ``view``, ``laterality`` ("L", "R"), ``sex`` ("F", "M"), ``age`` (years; 90 for everybody
        older) and ``manufacturer`` where known; ``view_source`` and ``laterality_source`` ("tag", "code",
        "orientation", "description") with view and laterality; ``traits``, joined by "|", where there are any;
        ``orientation``, what brings the image upright by its header
        (:func:`cleft_bundle.data.dicom.upright.upright_turn`), where that names one. Sorted by name.

    Raises:
        BundleError: there is no such folder, nothing in it is a radiograph, or an argument or the table is not as
            described.
    """
    if split is not None:
        raise BundleError(f"split='{split}': headers name no split; expected None")
    excluded = require_some_of("exclude", exclude, _LEFT_OUT)
    kept = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    prompts.check_slots(SLOTS)
    root = Path(root)
    sidecar = _read_labels(root / table)
    named = {name for names in sidecar.values() for name in names}
    prompts.check_classes([*VIEW_WORDS.values(), *sorted(named)], "view or finding", "this folder")
    write = parts.caption_writer(prompts)
    skipped: Counter[str] = Counter()
    items: dict[str, Item] = {}
    used: set[str] = set()
    copies: Counter[tuple[str, str, str]] = Counter()
    files = list_images(str(root))
    for file in bar(files, "reading headers", "file", hidden=len(files) < LONG):
        details = _read(file["image"], kept)
        if isinstance(details, str):
            skipped[details] += 1
            continue
        names = _names(file["path"], details)
        copies[names] += 1
        traits = [*filter(None, details["traits"].split("|")), *(["duplicate"] if copies[names] > 1 else [])]
        keys = [key for key in (details["instance"], file["path"], Path(file["path"]).name) if key in sidecar]
        used.update(keys[:1])
        refused = next((_LEFT_OUT[trait] for trait in traits if trait in excluded), None)
        details["traits"] = "|".join(traits)
        place = (*names[:2], f"{names[2]}-{copies[names]}".removesuffix("-1"))
        item = _item(file["image"], place, details, sidecar[keys[0]] if keys else None, prompts, write)
        if refused or not item["caption"]:
            skipped[refused or "that nothing captions"] += 1
            continue
        items[item["name"]] = item
    shared = Counter(instance for *_, instance in copies)
    _report(root, len(files), list(items.values()), skipped, sorted(set(sidecar) - used))
    if several := [instance for instance, count in shared.items() if count > 1]:
        logger.warning("DICOM folder: SOP instances in several studies or patients, which count as different: %d",
                       len(several))  # fmt: skip
    return [items[name] for name in sorted(items)]


def _read(path: str, modalities: Collection[str]) -> dict[str, Any] | str:
    """What a header says, or why the file is left out."""
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            return "without DICOM's preamble"
    try:
        ds = dicom_header.read_header(path, pixels=False)
        details = {**dicom_header.describe(ds), **dicom_header.describe_person(ds)}
        details["instance"] = dicom_header.instance(ds)
        turn = upright_turn(details)
        details["orientation"] = "" if turn == NOT_GIVEN else turn
        size, frames = (ds.get("Rows"), ds.get("Columns")), int(ds.get("NumberOfFrames") or 1)
    except Exception:  # pydicom raises many kinds on broken files, and quotes their values
        return "that cannot be read"
    refused = {
        "without an image": not all(size),
        "of other modalities": details["modality"] not in modalities,
        "of several frames": frames != 1,
        "for processing": details["presentation_intent"] == "FOR PROCESSING",
    }
    return next((reason for reason, holds in refused.items() if holds), details)


def _names(path: str, details: dict[str, Any]) -> tuple[str, str, str]:
    """Pseudonyms of patient, study and instance; what a header does not name is called after what it does."""
    instance = details["instance"] or pseudonym(path)
    study = details["study"] or details["patient"] or instance
    return details["patient"] or study, study, instance


def _item(
    image: str,
    place: tuple[str, str, str],
    details: dict[str, Any],
    names: list[str] | None,
    prompts: PromptSet,
    write: Callable[[Mapping[str, object]], dict[str, Any]],
) -> Item:
    """The item of an image; its caption is "" where nothing captions it."""
    patient, study, instance = place
    certain = details | {key: "" for key in ("view", "laterality") if details[f"{key}_source"] == DESCRIPTION}
    view = VIEW_WORDS.get(certain["view"])
    findings = {}
    for word in prompts.classes:
        if word in VIEW_WORDS.values() and view:
            findings[word] = float(word == view)
        elif word not in VIEW_WORDS.values() and names is not None:
            findings[word] = float(word in names)
    findings |= dict.fromkeys(names or [], 1.0) | ({view: 1.0} if view else {})
    words = parts.words_of(parts.known(**{key: certain[key] for key in ("laterality", "sex", "age")})) | {
        "modality": _MODALITY_WORDS.get(details["modality"], "radiograph"),
        "view": view,
        "findings": describe_findings(names or []),
    }
    shown = parts.known(**{key: details[key] for key in _SHOWN})
    if shown.get("laterality") == "B":
        del shown["laterality"], shown["laterality_source"]
    return make_item(
        image,
        f"{patient}/{study}/{instance}.dcm",
        write(words) or {"caption": ""},
        findings=findings,
        label=parts.labels(findings, prompts),
        patient_id=patient,
        study_id=study,
        details=shown,
    )


def _read_labels(path: Path) -> dict[str, list[str]]:
    """From each instance's pseudonym, or file, to its findings."""
    if not path.is_file():
        return {}
    frame = tables.read_table(path, ["finding"], [_UID, "image"])
    keys = [name for name in (_UID, "image") if name in frame]
    if len(keys) != 1:
        raise BundleError(f"{path}: expected a column '{_UID}' or 'image', found {'both' if keys else 'neither'}")
    column: pd.Series = frame[keys[0]]
    tables.no_gaps(column, path)
    if column.duplicated().any():  # without the value: it names a patient's image
        surplus = column.index[column.duplicated()]
        raise BundleError(f"{path}: column '{column.name}' repeats a value in {tables.rows(len(surplus))}, "
                          f"the first is row {surplus[0]}; join several findings by '|'")  # fmt: skip
    named = [pseudonym(value) if keys[0] == _UID else value for value in column]
    return dict(zip(named, map(tables.names, frame["finding"]), strict=True))


def _report(root: Path, files: int, items: list[Item], skipped: Counter[str], unused: list[str]) -> None:
    reasons = [f"{count} {reason}" for reason, count in skipped.most_common()]
    if not items:
        raise BundleError(f"{root}: none of {files} files is a radiograph; left out: {', '.join(reasons) or 'none'}")
    logger.info("DICOM folder: %d files, %d items", files, len(items))
    for reason in reasons:
        logger.info("DICOM folder: left out: %s", reason)
    traits = Counter(trait for item in items for trait in item.get("traits", "").split("|") if trait)
    for trait, count in traits.most_common():
        logger.info("DICOM folder: among the items: %d %s", count, _LEFT_OUT[trait])
    for name in ("view", "laterality"):
        guessed = sum(item.get(f"{name}_source") == DESCRIPTION for item in items)
        if guessed:
            logger.info("DICOM folder: among the items: %d whose %s is a guess from the description, and in no caption",
                        guessed, name)  # fmt: skip
    unknown = sum(item.get("orientation") == UNKNOWN for item in items)
    if unknown:
        logger.info("DICOM folder: among the items: %d left as they lie, as no rule is known for the orientation that"
                    " their header names", unknown)  # fmt: skip
    if unused:
        logger.warning("%s of the table of labels have no image in the folder", tables.rows(len(unused)))
