"""Resampling radiographs to a pixel size in millimetres, so that one anatomy has one size in images of all machines."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Resize
from monai.transforms.spatial.functional import resize
from monai.utils import get_equivalent_dtype

from cleft_bundle.data.images.geometry import pixel_spacing as spacing_of
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms.checks import about, as_image

logger = logging.getLogger(__name__)


class ResampleToSpacing(Resize):
    """Resize an image so that a pixel has a given size in the patient.

    MONAI's Resize does it, over areas where the image shrinks and bilinearly where it grows; MONAI's Spacing would pick
    single points of a large image. The new size is rounded to whole pixels, so that the spacing in the affine differs
    from the one asked for by less than half a pixel over the whole image.

    Args:
        pixel_spacing: mm between the rows and between the columns.
        fallback: what the spacing of a file that does not tell it is taken to be, in mm, which is logged once; None
            makes such a file an error.
        largest: None, or how many rows and columns an image may have afterwards.
        mode: of MONAI's Resize; None: by area or bilinear, as above.
        lazy: as in MONAI.

    Raises:
        BundleError: if a size is not a positive number; on a call, RadiographError naming the file if its spacing is
            not known and there is no fallback, or it is larger than `largest`.
    """

    def __init__(
        self,
        pixel_spacing: float,
        fallback: float | None = None,
        largest: int | None = None,
        mode: str | None = None,
        lazy: bool = False,
    ) -> None:
        super().__init__(spatial_size=-1, lazy=lazy)
        self.pixel_spacing = _positive("pixel_spacing", pixel_spacing)
        self.fallback = None if fallback is None else _positive("spacing_fallback", fallback)
        self.largest = None if largest is None else int(_positive("largest", largest))
        self.fixed_mode = mode

    @property
    def requires_current_data(self) -> bool:
        """True, as a lazy pipeline must apply what is pending before this transform."""
        return True

    def size(self, img: torch.Tensor) -> tuple[int, int]:
        """Rows and columns that an image [C, H, W] gets."""
        with about(img):
            known = spacing_of(img.meta) if isinstance(img, MetaTensor) else None
            if known is None:
                known = self._assumed()
            rows, columns = (
                max(1, round(pixels * size / self.pixel_spacing))
                for pixels, size in zip(img.shape[1:], known, strict=True)
            )
            if self.largest is not None and max(rows, columns) > self.largest:
                raise RadiographError(
                    f"is {rows} x {columns} pixels at pixel_spacing {self.pixel_spacing:g} mm, and there is room for "
                    f"{self.largest}: a larger pixel_spacing or image_size is needed"
                )
            return rows, columns

    def __call__(
        self, img: torch.Tensor, mode: str | None = None, size: tuple[int, int] | None = None, lazy: bool | None = None
    ) -> torch.Tensor:
        """Resample an image [C, H, W] to `size`, or where that is not given to the size that its spacing tells."""
        img = as_image(img)
        size = self.size(img) if size is None else size
        shrinks = size[0] <= img.shape[1] and size[1] <= img.shape[2]
        chosen = mode or self.fixed_mode or ("area" if shrinks else "bilinear")
        dtype = get_equivalent_dtype(torch.float32, torch.Tensor)
        lazy = self.lazy if lazy is None else lazy
        return resize(img, size, chosen, None, dtype, 2, False, None, lazy, self.get_transform_info())

    def _assumed(self) -> tuple[float, float]:
        if self.fallback is None:
            raise RadiographError(
                "does not tell the size of its pixels, which pixel_spacing needs; spacing_fallback can stand in"
            )
        _log_assumed(self.fallback)
        return self.fallback, self.fallback


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BundleError(f"{name}: expected a positive number, got {value!r}")
    return float(value)


@cache
def _log_assumed(spacing: float) -> None:
    """Log that a spacing is taken for granted, once per process."""
    logger.warning("spacing_fallback: images that do not tell the size of their pixels are taken for %g mm", spacing)
