"""The item: one image with what is known of it, as every data set makes it and everything else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Required, TypedDict


class Described(TypedDict, total=False):
    """Keys that images and exams share: words, labels, and whose it is. None of it names a person.

    Attributes:
        caption: one line of text; "" where a datalist file has none.
        captions: other wordings of it, the first among them; only where there are several.
        findings: by name 1.0 (present) or 0.0 (absent); what is not known is left out.
        label: in the order of the classes 1.0, 0.0 or NaN (unknown); empty where there are no classes.
        patient_id: pseudonym, 16 hexadecimal digits; the image's own where a table names no patient.
        study_id: pseudonym of the study; the patient's where a table names none.
        split: ``train``, ``validation`` or ``test``; None where the data set names no split.
        sex: ``F`` or ``M``.
        age: years, 0 to 120.
        race: words of the table, in lower case.
        ethnicity: words of the table, in lower case.
        reason: ``screening`` or ``diagnostic``.
        density: of the breast, 1 (almost entirely fat) to 4 (extremely dense) as ACR A to D; 5 is a male breast.
        birads: BI-RADS assessment category, 0 to 6.
        pathology: ``benign`` or ``malignant``.
        path_severity: of pathology, 0 (invasive cancer) to 5 (negative), 6 no breast cancer.
    """

    caption: Required[str]
    captions: list[str]
    findings: dict[str, float]
    label: Required[list[float]]
    patient_id: Required[str]
    study_id: str
    split: str | None
    sex: str
    age: float
    race: str
    ethnicity: str
    reason: str
    density: int
    birads: int
    pathology: str
    path_severity: int


class Item(Described, total=False):
    """One image with what is known of it. A key that is not required is absent where nothing is known.

    Attributes:
        image: path of the file, absolute.
        name: path within the data set, with forward slashes: the same on every machine.
        view: ``AP``, ``PA``, ``FRONTAL``, ``LATERAL``, or a view of mammography such as ``CC`` and ``MLO``.
        view_source: what the view was read from: ``tag``, ``code``, ``orientation`` or ``description`` (a guess).
        laterality: ``L`` or ``R``.
        laterality_source: as ``view_source``.
        modality: DICOM's, such as ``DX`` and ``MG``.
        manufacturer: of the device, as :func:`cleft_bundle.data.dicom.makers.maker` writes it.
        traits: what sets the image apart, such as ``spot``, joined by ``|``.
        orientation: what brings the image upright, see :mod:`cleft_bundle.data.images.turns`.
        boxes: [x, y, width, height] in pixels of the original image, from its upper left corner.
        box_findings: the finding of each box.
        box_birads: the category of each box, 1 to 5, or None.
        picture: digest of the decoded picture, see :func:`cleft_bundle.data.read_pictures`.
    """

    image: Required[str]
    name: Required[str]
    view: str
    view_source: str
    laterality: str
    laterality_source: str
    modality: str
    manufacturer: str
    traits: str
    orientation: str
    boxes: list[list[float]]
    box_findings: list[str]
    box_birads: list[int | None]
    picture: str


def make_item(
    image: str,
    name: str,
    texts: Mapping[str, Any],
    *,
    label: list[float],
    patient_id: str,
    findings: dict[str, float] | None = None,
    study_id: str | None = None,
    split: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Item:
    """Put together the item of an image, its keys in one order for all data sets.

    Args:
        image: path of the file, absolute.
        name: path within the data set.
        texts: ``caption`` and, where there are several, ``captions``.
        label: in the order of the classes 1.0, 0.0 or NaN.
        patient_id: pseudonym of the patient.
        findings: 1.0 or 0.0 by name; None where labels alone are known.
        study_id: pseudonym of the study; None where there is none: the patient's.
        split: of the data set; None where it names none.
        details: what else is known, by the other keys of :class:`Item`.
    """
    item: dict[str, Any] = {
        "image": image,
        "name": name,
        **texts,
        **({} if findings is None else {"findings": findings}),
        "label": label,
        "patient_id": patient_id,
        "study_id": study_id or patient_id,
        "split": split,
        **(details or {}),
    }
    return item  # type: ignore[return-value]  # the names of details are known when it runs


def changed(item: Item, **values: Any) -> Item:
    """A copy of an item with other values of some keys."""
    return {**item, **values}  # type: ignore[typeddict-item]  # as of make_item
