"""Array transforms that move pixels: all are MONAI's crop, pad or flip, so that MONAI's inverse maps heat maps back.

All take and give an image [C, H, W], rows x columns, bright = dense, as `RadiographReader` and MONAI's
EnsureChannelFirst give it; of NumPy arrays and tensors they make MetaTensors while MONAI tracks metadata.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Crop, Flip, InvertibleTransform, RandFlip, SpatialPad
from monai.utils import TraceKeys, convert_to_tensor

from cleft_bundle.data.dicom.views import known_laterality
from cleft_bundle.data.images.geometry import patient_orientation
from cleft_bundle.errors import RadiographError, require_one_of
from cleft_bundle.transforms.checks import about, as_image, extremes, require_fraction
from cleft_bundle.transforms.sides import opposite
from cleft_bundle.transforms.tissue import find_tissue

logger = logging.getLogger(__name__)

_SAMPLES = 128  # pixels of a row or column that are looked at
_SIDES = ("left", "right")
_BY_WALL = "then flip columns by the chest wall"


class ContentCrop(Crop):
    """A crop to a box that the image itself tells; subclasses say which. Inverse: MONAI's Crop pads with 0."""

    @property
    def requires_current_data(self) -> bool:
        """True, as a lazy pipeline must apply what is pending before this transform."""
        return True

    @abstractmethod
    def box(self, img: torch.Tensor) -> tuple[slice, slice]:
        """Rows and columns to keep of an image [C, H, W]."""

    def __call__(
        self, img: torch.Tensor, slices: tuple[slice, ...] | None = None, lazy: bool | None = None
    ) -> torch.Tensor:
        """Crop an image [C, H, W] to `slices`, or where none are given to its own box."""
        return super().__call__(img, slices=slices or self.box(as_image(img)), lazy=lazy)


class CropBreast(ContentCrop):
    """Crop a mammogram to its breast: the box around the largest piece of tissue, see `find_tissue`.

    Args:
        margin: room left around the tissue, as a part of the image's longest side, 0..1.
        lazy: as in MONAI.

    Raises:
        BundleError: if `margin` is not in 0..1; on a call, RadiographError naming the file if it holds no tissue.

    Examples:
        >>> import torch
        >>> mammogram = torch.zeros(1, 100, 80)
        >>> mammogram[:, 20:70, :30] = 0.5 + 0.1 * torch.rand(50, 30, generator=torch.Generator().manual_seed(0))
        >>> CropBreast()(mammogram).shape
        torch.Size([1, 56, 33])
    """

    def __init__(self, margin: float = 0.03, lazy: bool = False) -> None:
        super().__init__(lazy)
        self.margin = require_fraction("margin", margin)

    def box(self, img: torch.Tensor) -> tuple[slice, slice]:
        """Rows and columns that hold the breast and its margin."""
        with about(img):
            return find_tissue(img).box(self.margin)


class CropCollimation(ContentCrop):
    """Crop the shutters of a collimator away: rows and columns at the borders that are black, white or all alike.

    A row or column belongs to a shutter if nine tenths of its pixels lie within `tolerance` of each other, so that a
    letter on the shutter does not save it. Rows and columns are taken away in turn from all four sides until none is
    left that is alike; shutters that stand at an angle leave triangles in the corners.

    Args:
        tolerance: part of the image's range of values, 0..1.
        lazy: as in MONAI.

    Raises:
        BundleError: if `tolerance` is not in 0..1; on a call, RadiographError naming the file if nothing would be left.
    """

    def __init__(self, tolerance: float = 0.02, lazy: bool = False) -> None:
        super().__init__(lazy)
        self.tolerance = require_fraction("tolerance", tolerance)

    def box(self, img: torch.Tensor) -> tuple[slice, slice]:
        """Rows and columns within the shutters."""
        with about(img):
            pixels = img.to(torch.float32).numpy(force=True)
            low, high = extremes(pixels)
            limit = self.tolerance * (high - low)
            rows, columns, before = slice(0, pixels.shape[1]), slice(0, pixels.shape[2]), None
            while (rows, columns) != before:
                before = rows, columns
                rows = _varied(pixels[:, rows, columns], rows.start, limit)
                columns = _varied(pixels[:, rows, columns].swapaxes(1, 2), columns.start, limit)
            return rows, columns


def _varied(pixels: np.ndarray, start: int, limit: float) -> slice:
    """The rows of an image between those at its two ends that vary by no more than `limit`; the first is `start`."""
    sample = pixels[:, :, :: max(1, pixels.shape[2] // _SAMPLES)].mean(0)
    low, high = np.quantile(sample, ((0.0, 0.05, 0.1), (0.9, 0.95, 1.0)), axis=1)
    kept = np.flatnonzero((high - low).min(0) > limit)
    if not len(kept):
        raise RadiographError("shows nothing but shutter: all its rows or columns are black, white or alike")
    return slice(start + int(kept[0]), start + int(kept[-1]) + 1)


class PadToSquare(SpatialPad):
    """Pad an image to a square of its own longest side; MONAI's SpatialPad wants to know that side beforehand.

    Args:
        method: "symmetric", or "end": right and below, which keeps a chest wall at the left border.
        mode: as in MONAI's SpatialPad.
        lazy: as in MONAI.
        kwargs: further arguments of SpatialPad.

    Examples:
        >>> import torch
        >>> PadToSquare()(torch.ones(1, 4, 6)).shape
        torch.Size([1, 6, 6])
    """

    def __init__(self, method: str = "symmetric", mode: str = "constant", lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(-1, method=method, mode=mode, lazy=lazy, **kwargs)

    def __call__(self, img: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Pad an image [C, H, W]; further arguments as in MONAI's SpatialPad."""
        return super().__call__(as_image(img), *args, **kwargs)

    def compute_pad_width(self, spatial_shape: Sequence[int]) -> tuple[tuple[int, int]]:
        """Cells to add before and after, for the channels and each axis."""
        return SpatialPad(max(spatial_shape), method=self.method).compute_pad_width(spatial_shape)


class OrientBreast(InvertibleTransform):
    """Mirror mammograms whose chest wall is on the other side.

    A mirrored image looks like one of the other breast: after this transform the picture no longer tells left from
    right; `laterality`, in the metadata and in the item, still does. What is mirrored after `OrientRadiograph` stands
    in `orientation_applied`, too: where header and picture differ the picture decides, which is logged once.

    Args:
        chest_wall: where the chest wall is to be, "left" or "right".
        by: "pixels", the default: the side of the tissue's box along which there is more tissue. Or "header": what
            `RadiographReader` read from it into the metadata, that is `patient_orientation` (rows that run to the
            anterior start at the chest wall), else `laterality`, with a left breast's chest wall on the left as
            mammograms are customarily hung. Archives often hang them otherwise and say nothing of it.

    Raises:
        BundleError: if an argument is none of these; on a call, RadiographError naming the file if it holds no tissue
            (by pixels), or the metadata neither orientation nor side (by header).

    Source: DICOM PS3.3 C.7.6.1.1.1 (Patient Orientation) and C.8.11.7 (Mammography Image).
    """

    def __init__(self, chest_wall: str = "left", by: str = "pixels") -> None:
        require_one_of("chest_wall", chest_wall, _SIDES)
        require_one_of("by", by, ("pixels", "header"))
        self.chest_wall = chest_wall
        self.by = by
        self.flipper = Flip(spatial_axis=1)

    def is_mirrored(self, img: torch.Tensor) -> bool:
        """True where the chest wall of an image [C, H, W] is not where it is to be."""
        with about(img):
            if self.by == "header":
                return _wall_by_header(img) != self.chest_wall
            seen, declared = _wall_by_pixels(img), _declared_wall(img)
        if declared and declared != seen:
            _log_contradiction(declared, seen)
        return seen != self.chest_wall

    def __call__(self, img: torch.Tensor, mirror: bool | None = None) -> torch.Tensor:
        """Mirror an image [C, H, W] left to right if `mirror`, or where that is not given if `is_mirrored`."""
        img = as_image(img)
        mirror = self.is_mirrored(img) if mirror is None else mirror
        with self.flipper.trace_transform(False):
            out = self.flipper(img) if mirror else convert_to_tensor(img, track_meta=get_track_meta())
        before = out.meta.get("orientation_applied") if isinstance(out, MetaTensor) else None
        if mirror and before is not None:
            out.meta = {**out.meta, "orientation_applied": f"{before}, {_BY_WALL}"}
        self.push_transform(out, extra_info={"mirrored": mirror})
        return out

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Mirror back what was mirrored."""
        mirrored = self.pop_transform(data)[TraceKeys.EXTRA_INFO]["mirrored"]
        if isinstance(data, MetaTensor) and "orientation_applied" in data.meta:
            before = data.meta["orientation_applied"].removesuffix(f", {_BY_WALL}")
            data.meta = {**data.meta, "orientation_applied": before}
        with self.flipper.trace_transform(False):
            return self.flipper(data) if mirrored else data


def _wall_by_header(img: torch.Tensor) -> str:
    meta = img.meta if isinstance(img, MetaTensor) else {}
    wall = _declared_wall(img)
    if wall:
        return wall
    side = known_laterality(meta)
    if side in ("L", "R"):
        return "left" if side == "L" else "right"
    raise RadiographError(
        'patient_orientation and laterality do not tell the chest wall\'s side; by="pixels" looks for it'
    )


def _declared_wall(img: torch.Tensor) -> str:
    """The chest wall's side as the header's orientation has it, "" where it tells neither left nor right."""
    along_rows = patient_orientation(img.meta).split("\\")[0] if isinstance(img, MetaTensor) else ""
    depth = next((letter for letter in along_rows if letter in "AP"), "")
    return {"A": "left", "P": "right"}.get(depth, "")


def _wall_by_pixels(img: torch.Tensor) -> str:
    tissue = find_tissue(img).mask
    columns = np.flatnonzero(tissue.any(0))
    heights = tissue[:, columns[0] : columns[-1] + 1].sum(0)
    edge = max(1, len(heights) // 10)
    return "left" if heights[:edge].sum() >= heights[-edge:].sum() else "right"


@cache
def _log_contradiction(declared: str, seen: str) -> None:
    """Log that header and picture differ, once per process; `orientation_applied` tells it of each image."""
    logger.warning(
        "a mammogram's chest wall is on the %s by its header and on the %s by its pixels: the pixels decide",
        declared,
        seen,
    )


class RandBreastFlip(RandFlip):
    """Mirror a mammogram left to right at random; its `laterality` in the metadata changes with it.

    A mirrored left breast is a picture of a right one. Use this without `OrientBreast`, which it would undo.

    Args:
        prob: probability of mirroring, 0..1.
        lazy: as in MONAI.
    """

    def __init__(self, prob: float = 0.5, lazy: bool = False) -> None:
        super().__init__(prob=require_fraction("prob", prob), spatial_axis=1, lazy=lazy)

    def __call__(self, img: torch.Tensor, randomize: bool = True, lazy: bool | None = None) -> torch.Tensor:
        """Mirror an image [C, H, W], or leave it."""
        out = super().__call__(as_image(img), randomize=randomize, lazy=lazy)
        return mark_mirrored(out) if self._do_transform else out

    def inverse(self, data: MetaTensor) -> torch.Tensor:
        """Mirror back what was mirrored, its laterality too."""
        mirrored = data.applied_operations[-1].get(TraceKeys.DO_TRANSFORM)
        data = super().inverse(data)
        return mark_mirrored(data) if mirrored else data


def mark_mirrored(img: torch.Tensor) -> torch.Tensor:
    """Exchange the patient's left and right in the metadata of an image, where it names them."""
    if isinstance(img, MetaTensor):
        exchanged = {"laterality": opposite, "patient_orientation": _exchange_sides}
        changed = {name: change(img.meta[name]) for name, change in exchanged.items() if name in img.meta}
        img.meta = {**img.meta, **changed}
    return img


def _exchange_sides(orientation: str) -> str:
    return orientation.translate(str.maketrans("LR", "RL"))
