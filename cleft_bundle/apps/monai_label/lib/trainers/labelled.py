"""The final labels of a datastore as training items, and their division by patient."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleft_bundle.data import pseudonym
from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.splits import draw_sides
from cleft_bundle.errors import BundleError
from cleft_bundle.files import save_text
from cleft_bundle.vocabulary import NO_FINDING, Task

from ..labels import one_hot, read_label

logger = logging.getLogger(__name__)

#: Of every class so many patients, one to train on and one to spare.
PATIENTS_A_CLASS = 2
_UNKNOWN = ("", "UNK")  # what MONAI Label's DICOMweb datastore writes where a header has no value


@dataclass(frozen=True)
class Labelled:
    """An image of a datastore that has a final label.

    Args:
        image: its id.
        file: its file.
        label: its label file.
        info: what the datastore knows of it.
    """

    image: str
    file: str
    label: str
    info: Mapping[str, Any] = field(default_factory=dict)


def labelled_items(images: Iterable[Labelled], class_names: Sequence[str], task: Task) -> list[Item]:
    """Make items of labelled images.

    An image's patient is ``patient_id`` or ``PatientID`` of its info, else what its DICOM header says, else the image
    counts as a patient of its own, and the log says how many do.

    Args:
        images: the images.
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.

    Returns:
        items as a ``datalist`` function returns them: ``image``, ``name`` and ``patient_id`` (pseudonyms), ``label``
        (1.0 or 0.0 a class) and ``caption``; sorted by name.

    Raises:
        BundleError: a label file that cannot be read, or names other classes.
    """
    items: list[Item] = []
    alone = 0
    for one in images:
        present = read_label(one.label, class_names, task)
        patient = _patient(one)
        alone += not patient
        name = pseudonym(one.image)
        items.append(
            make_item(
                one.file,
                name,
                {"caption": ", ".join(present) or NO_FINDING},
                label=[float(value) for value in one_hot(present, class_names)],
                patient_id=patient or name,
            )
        )
    if alone:
        logger.warning("%d of %d labelled images name no patient: each counts as one of its own, so that images of one "
                       "patient may be on both sides of the split", alone, len(items))  # fmt: skip
    return sorted(items, key=lambda item: item["name"])


def divide(
    items: Sequence[Item],
    class_names: Sequence[str],
    task: Task,
    val_split: float,
    seed: int = 0,
    before: Mapping[str, str] | None = None,
) -> dict[str, list[Item]]:
    """Divide labelled images by patient into those to train on and those to measure on.

    Args:
        items: what :func:`labelled_items` returns.
        class_names: names of the K classes.
        task: ``multiclass`` or ``multilabel``.
        val_split: share of the patients for validation, between 0 and 1.
        seed: another seed draws other patients.
        before: from patients to their splits in an earlier training, which they keep: nobody whom the served
            classifier was trained on is measured on.

    Returns:
        ``train``, ``validation`` and ``test`` (empty).

    Raises:
        BundleError: a share out of range, or too few labels: names the classes that lack patients and how many they
            have.
    """
    if not 0 < val_split < 1:
        raise BundleError(f"val_split={val_split}: expected a share of the patients between 0 and 1")
    patients = [
        len({item["patient_id"] for item in items if item["label"][place] == 1}) for place in range(len(class_names))
    ]
    counted = [(name, count) for name, count in zip(class_names, patients, strict=True) if count < PATIENTS_A_CLASS]
    if counted:
        short = ", ".join(f"{name} has {count or 'none'}" for name, count in counted)
        raise BundleError(
            f"{len(items)} labelled images are too few: every class needs labels of {PATIENTS_A_CLASS} patients or "
            f"more, {short}"
        )
    sides = draw_sides(items, {"train": 1 - val_split, "validation": val_split}, seed, before)
    for place in range(len(class_names)):  # what is rare must be seen to be learnt
        positive = [item["patient_id"] for item in items if item["label"][place] == 1]
        movable = [patient for patient in positive if patient not in (before or {})]
        if movable and all(sides[patient] == "validation" for patient in positive):
            sides[movable[0]] = "train"
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    for item in items:
        splits[sides[item["patient_id"]]].append(item)
    for value, kind in ((1, "with"), (0, "without")):
        lacking = [
            name
            for place, name in enumerate(class_names)
            if not any(item["label"][place] == value for item in splits["train"])
        ]
        if lacking and (value == 1 or task == "multilabel"):
            raise BundleError(
                f"{len(splits['train'])} images to train on: none {kind} {', '.join(lacking)}; label more of them, or "
                "choose another val_split or split_seed"
            )
    labels = [tuple(item["label"]) for item in splits["validation"]]
    if len(set(labels)) < 2:
        raise BundleError(
            f"{len(labels)} images to measure on have all the same label: label more, or choose a larger val_split"
        )
    return splits


def read_sides(path: Path) -> dict[str, str]:
    """From the pseudonyms of patients to their splits in earlier trainings; empty where there is no such file.

    Args:
        path: what :func:`write_sides` wrote.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8")).items()
        return {patient: split for patient, split in stored if split in ("train", "validation")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        logger.warning("%s cannot be read: patients are divided anew", path)
        return {}


def write_sides(splits: Mapping[str, Sequence[Item]], path: Path) -> None:
    """Keep who is on which side, beside those that the file knows and who have no label now."""
    sides = {item["patient_id"]: split for split, items in splits.items() for item in items}
    save_text(json.dumps(read_sides(path) | sides, indent=0), path)


def _patient(one: Labelled) -> str:
    """The pseudonym of an image's patient, "" where nothing names one."""
    for key in ("patient_id", "PatientID"):
        value = str(one.info.get(key) or "").strip()
        if value not in _UNKNOWN:
            return pseudonym(value)
    with suppress(Exception):  # pydicom raises many kinds, also on what is no DICOM
        return str(dicom_header.describe(dicom_header.read_header(one.file, pixels=False))["patient"])
    return ""
