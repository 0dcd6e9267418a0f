"""The turn that brings a radiograph upright, by the orientation that its header names: a rule, not a look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.data.dicom.views import known_laterality
from cleft_bundle.data.images.geometry import patient_orientation
from cleft_bundle.data.images.turns import NOT_GIVEN, TURNS, UNKNOWN

_MAMMOGRAMS = frozenset({"CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "SIO", "FB"})
#: Of mammograms, the views in which the head is above.
FROM_THE_SIDE = frozenset({"MLO", "ML", "LM", "LMO"})
_AXES = {letter: axis for axis in ("LR", "AP", "HF") for letter in axis}
_MEDIAL = {"L": "R", "R": "L"}  # of a left breast, the middle of the body lies towards the patient's right


def is_mammogram(meta: Mapping[str, Any]) -> bool:
    """True where an image shows a breast, by its modality or its view."""
    return meta.get("modality") == "MG" or meta.get("view") in _MAMMOGRAMS


def upright_turn(meta: Mapping[str, Any]) -> str:
    r"""Tell how an image must be turned to be upright, by the orientation of its header.

    A frontal radiograph comes to L\F: rows run to the patient's left, columns to the feet. A mammogram comes to A and
    F: the chest wall is left and the head above; seen from above or below (CC), its columns run to the middle of the
    body (A\R of a left breast, A\L of a right one), which is how the two are customarily hung. Of a direction such as
    AR the first letter, which dominates, counts. Hands and feet are hung by other customs, and are not meant here.

    Args:
        meta: metadata of an image of `RadiographReader`, or those of a header that `header.describe` gives.

    Returns:
        a name of `TURNS`; "not given" where the file does not tell its orientation; "unknown" where it tells one that
        is none of these: a lateral chest, for which there is no rule, a CC view whose side is not known, or directions
        that do not lie in one plane with these.

    Source: DICOM PS3.3 C.7.6.1.1.1 (Patient Orientation) and C.8.11.7 (Mammography Image).
    """
    now = patient_orientation(meta)
    if not now:
        return NOT_GIVEN
    rightwards, downwards = (direction[0] for direction in now.split("\\"))
    wanted = _wanted({_AXES[rightwards], _AXES[downwards]}, is_mammogram(meta), known_laterality(meta))
    return next(
        (name for name, turn in TURNS.items() if turn.directions(downwards, rightwards) == wanted),
        UNKNOWN,
    )


def _wanted(axes: set[str], breast: bool, laterality: str) -> tuple[str, str] | None:
    """Where columns and rows should run in a plane that is spanned by two axes of the body."""
    if not breast:
        return ("F", "L") if axes == {"LR", "HF"} else None
    if axes == {"AP", "HF"}:
        return "F", "A"
    return (_MEDIAL[laterality], "A") if axes == {"AP", "LR"} and laterality in _MEDIAL else None
