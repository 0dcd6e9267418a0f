r"""Bringing radiographs upright by what their header says of it: chests to L\F, breasts to the chest wall on the left.

The pixels are turned by MONAI's Rotate90 and Flip, so that the affine follows and MONAI's inverse leads back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Flip, InvertibleTransform, Rotate90
from monai.utils import TraceKeys, convert_to_tensor

from cleft_bundle.data.dicom_views import known_laterality
from cleft_bundle.data.geometry import patient_orientation
from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms.checks import as_image
from cleft_bundle.transforms.orientation_check import seen_turn
from cleft_bundle.transforms.turns import TURNS

logger = logging.getLogger(__name__)

NOT_GIVEN, UNKNOWN = "not given", "unknown"
_MAMMOGRAMS = frozenset({"CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "SIO", "FB"})
_FROM_THE_SIDE = frozenset({"MLO", "ML", "LM", "LMO"})  # of mammograms: the head is above
_AXES = {letter: axis for axis in ("LR", "AP", "HF") for letter in axis}
_MEDIAL = {"L": "R", "R": "L"}  # of a left breast, the middle of the body lies towards the patient's right


def is_mammogram(meta: Mapping[str, Any]) -> bool:
    """Whether an image shows a breast, by its modality or its view."""
    return meta.get("modality") == "MG" or meta.get("view") in _MAMMOGRAMS


def upright_turn(meta: Mapping[str, Any]) -> str:
    r"""Tell how an image must be turned to be upright, by the orientation of its header.

    A frontal radiograph comes to L\F: rows run to the patient's left, columns to the feet. A mammogram comes to A and
    F: the chest wall is left and the head above; seen from above or below (CC), its columns run to the middle of the
    body (A\R of a left breast, A\L of a right one), which is how the two are customarily hung. Of a direction such as
    AR the first letter, which dominates, counts. Hands and feet are hung by other customs, and are not meant here.

    Args:
        meta: metadata of an image of `RadiographReader`.

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


class OrientRadiograph(InvertibleTransform):
    r"""Turn and mirror radiographs upright by PatientOrientation; see `upright_turn` for what is upright.

    What was done stands in the metadata as `orientation_applied`: "none", "flip columns", "flip rows", "rotate 90",
    "rotate 180", "rotate 270" (counterclockwise), "transpose", "anti-transpose", or "not given" or "unknown" where the
    image is left as it is; each unknown value is logged once. `patient_orientation` stays that of the file; that of the
    pixels follows from the affine, see `cleft_bundle.data.geometry`.

    Where the header is silent, `orientation_seen` gets what `seen_turn` sees in the pixels, by the same names; "" where
    it was not asked, or sees nothing. That is a guess: nothing is turned by it.

    Args:
        breast: whether images are mammograms, for those whose metadata tell neither modality nor view.
    """

    def __init__(self, breast: bool = False) -> None:
        self.breast = breast
        self.flipper = Flip(spatial_axis=1)
        self.turners = [Rotate90(k=quarters) for quarters in range(4)]

    def decide(self, img: torch.Tensor) -> str:
        """Tell how an image [C, H, W] is to be turned: a name of `TURNS`, "not given" or "unknown"."""
        meta = img.meta if isinstance(img, MetaTensor) else {}
        name = upright_turn(meta)
        if name == UNKNOWN:
            kind = "mammogram" if is_mammogram(meta) else "radiograph"
            _log_unknown(patient_orientation(meta), kind, str(meta.get("view", "")))
        return name

    def __call__(self, img: torch.Tensor, turn: str | None = None) -> torch.Tensor:
        """Turn an image [C, H, W] by a name of `TURNS`, or where that is not given as its header says."""
        img = as_image(img)
        name = self.decide(img) if turn is None else turn
        quarters, mirror = TURNS.get(name, TURNS["none"])
        out = convert_to_tensor(img, track_meta=get_track_meta())
        with self.flipper.trace_transform(False), self.turners[quarters].trace_transform(False):
            out = self.turners[quarters](out) if quarters else out
            out = self.flipper(out) if mirror else out
        if isinstance(out, MetaTensor):
            seen = self._seen(img) if name == NOT_GIVEN else ""
            out.meta = {**out.meta, "orientation_applied": name, "orientation_seen": seen}
        self.push_transform(out, extra_info={"quarters": quarters, "mirror": mirror})
        return out

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Turn back what was turned."""
        done = self.pop_transform(data)[TraceKeys.EXTRA_INFO]
        back = self.turners[-int(done["quarters"]) % 4]
        with self.flipper.trace_transform(False), back.trace_transform(False):
            data = self.flipper(data) if done["mirror"] else data
            data = back(data) if done["quarters"] else data
        if isinstance(data, MetaTensor):
            written = ("orientation_applied", "orientation_seen")
            data.meta = {key: value for key, value in data.meta.items() if key not in written}
        return data

    def _seen(self, img: MetaTensor) -> str:
        view, modality = str(img.meta.get("view", "")), img.meta.get("modality", "")
        breast = is_mammogram(img.meta) or (self.breast and not (view or modality))
        try:
            return seen_turn(img, breast, from_above=view not in _FROM_THE_SIDE)
        except RadiographError:  # a blank image is for others to refuse
            return ""


@cache
def _log_unknown(orientation: str, kind: str, view: str) -> None:
    """Log an orientation that is not known, once a process."""
    shown = f"{kind} ({view})" if view else kind
    logger.warning("orientation %s of a %s is not known: such images are left as they are", orientation, shown)
