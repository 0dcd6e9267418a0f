"""Codes for the names of classes, so that other systems understand what a score is about."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cleft_bundle.names import plain_name

#: Our own coding scheme, for names that have no code here (PS3.16 section 8.2: private designators begin with 99).
PRIVATE_SCHEME = "99CLEFT"


class FindingCode(NamedTuple):
    """Code value, coding scheme designator and code meaning (PS3.3 section 8.8)."""

    value: str
    scheme: str
    meaning: str


def _sct(value: str, meaning: str) -> FindingCode:
    return FindingCode(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> FindingCode:
    return FindingCode(value, "DCM", meaning)


_ATELECTASIS = _sct("46621007", "Atelectasis")
_EFFUSION = _sct("60046008", "Pleural effusion")
_OPACITY = _dcm("112001", "Opacity")

#: By class name: the code that PS3.16 has for it, else that of SNOMED CT (PS3.16 of 2024 has 287272002 for
#: cardiomegaly, which stands for an enlarged septal foramen as well).
CODES = {
    "atelectasis": _ATELECTASIS,
    "pulmonary atelectasis": _ATELECTASIS,
    "cardiomegaly": _sct("8186001", "Cardiomegaly"),
    "consolidation": _sct("95436008", "Lung consolidation"),
    "edema": _sct("19242006", "Pulmonary edema"),
    "effusion": _EFFUSION,
    "pleural effusion": _EFFUSION,
    "emphysema": _sct("87433001", "Pulmonary emphysema"),
    "fibrosis": _sct("112674009", "Fibrosis"),
    "infiltration": _dcm("112121", "Infiltrate"),
    "mass": _sct("4147007", "Mass"),
    "nodule": _sct("27925004", "Nodule"),
    "opacity": _OPACITY,
    "lung opacity": _OPACITY,
    "pneumonia": _sct("233604007", "Pneumonia"),
    "pneumothorax": _sct("36118008", "Pneumothorax"),
    "no finding": _dcm("111286", "No abnormality"),
    # of a breast
    "almost entirely fat": _sct("129716005", "Almost entirely fat"),
    "scattered fibroglandular densities": _sct("129717001", "Scattered fibroglandular densities"),
    "heterogeneously dense": _sct("129718006", "Heterogeneously dense"),
    "extremely dense": _sct("129719003", "Extremely dense"),
    "additional imaging": _sct("397138000", "Category 0 - Need additional imaging evaluation"),
    "negative": _sct("397140005", "Category 1 - Negative"),
    "benign": _sct("30807003", "Benign"),
    "probably benign": _sct("397143007", "Category 3 - Probably benign finding, short interval follow-up"),
    "suspicious": _sct("397144001", "Category 4 - Suspicious abnormality"),
    "highly suggestive of malignancy": _sct("397145000", "Category 5 - Highly suggestive of malignancy"),
    "known biopsy-proven malignancy": _dcm("111125", "Known biopsy proven malignancy"),
    "malignant": _sct("21594007", "Malignant"),
}


def finding_code(name: str) -> FindingCode:
    """The code of a class.

    Args:
        name: of the class; upper and lower case are alike.

    Returns:
        the code in :data:`CODES`, else one of our own: a digest of the name, with the name as its meaning. Value and
        meaning are as long as DICOM allows, 16 and 64 characters.
    """
    plain = plain_name(name)
    digest = hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()
    return CODES.get(plain) or FindingCode(digest, PRIVATE_SCHEME, " ".join(name.split())[:64])
