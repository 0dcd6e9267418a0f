r"""Bringing radiographs upright by what their header says of it: chests to L\F, breasts to the chest wall on the left.

The pixels are turned by MONAI's Rotate90 and Flip, so that the affine follows and MONAI's inverse leads back.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Flip, InvertibleTransform, Rotate90
from monai.utils import TraceKeys, convert_to_tensor

from cleft_bundle.data.dicom.upright import FROM_THE_SIDE, is_mammogram, upright_turn
from cleft_bundle.data.images.geometry import patient_orientation
from cleft_bundle.data.images.turns import NOT_GIVEN, TURNS, UNKNOWN
from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms.checks import as_image
from cleft_bundle.transforms.orientation_check import seen_turn

logger = logging.getLogger(__name__)


class OrientRadiograph(InvertibleTransform):
    r"""Turn and mirror radiographs upright by PatientOrientation; see `upright_turn` for what is upright.

    What was done stands in the metadata as `orientation_applied`: "none", "flip columns", "flip rows", "rotate 90",
    "rotate 180", "rotate 270" (counterclockwise), "transpose", "anti-transpose", or "not given" or "unknown" where the
    image is left as it is; each unknown value is logged once. `patient_orientation` stays that of the file; that of the
    pixels follows from the affine, see `cleft_bundle.data.images.geometry`.

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
            return seen_turn(img, breast, from_above=view not in FROM_THE_SIDE)
        except RadiographError:  # a blank image is for others to refuse
            return ""


@cache
def _log_unknown(orientation: str, kind: str, view: str) -> None:
    """Log an orientation that is not known, once per process."""
    shown = f"{kind} ({view})" if view else kind
    logger.warning("orientation %s of a %s is not known: such images are left as they are", orientation, shown)
