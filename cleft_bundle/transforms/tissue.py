"""The breast in a mammogram, told apart from whatever else lies on the film: letters, labels, borders, haze."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms.checks import extremes

_SIDE = 256  # cells on the longest side of the reduced image: enough for a breast, and quick
_SAMPLES = 1024  # pixels on the longest side that are looked at, each cell being the mean of several
_BINS = 256
_LIMIT = 0.5  # of the way from the background to Otsu's threshold: thin tissue below the skin is breast, too
_OPENING = 0.015  # of the longest side: what is thinner than twice this (film borders, bridges to letters) is no breast
_FLAT = 0.15  # a background varies by less than this part of the contrast; fat, which is no background, by more


@dataclass(frozen=True)
class Tissue:
    """The largest piece of tissue of an image, on a reduced grid.

    Attributes:
        mask: bool [h, w]; a cell stands for `step` x `step` pixels (fewer at the lower and right edge).
        step: pixels a cell's side.
        shape: rows and columns of the image.
        background: median of the image where there is no tissue, in its own units.
    """

    mask: np.ndarray
    step: int
    shape: tuple[int, int]
    background: float

    def box(self, margin: float) -> tuple[slice, slice]:
        """Rows and columns of the image that hold the tissue, and `margin` (a part of the longest side) around it."""
        extra = round(margin * max(self.shape))

        def pixels(cells: slice, size: int) -> slice:
            return slice(max(0, cells.start * self.step - extra), min(size, cells.stop * self.step + extra))

        rows, columns = ndimage.find_objects(self.mask.astype(np.uint8))[0]
        return pixels(rows, self.shape[0]), pixels(columns, self.shape[1])

    def pixels(self, margin: float) -> np.ndarray:
        """The mask at the size of the image, bool [H, W], grown by `margin` (a part of the longest side)."""
        cells = ndimage.distance_transform_edt(~self.mask) <= margin * max(self.mask.shape)
        return cells.repeat(self.step, 0).repeat(self.step, 1)[: self.shape[0], : self.shape[1]]


def find_tissue(image: torch.Tensor) -> Tissue:
    """Find the largest piece of tissue of a mammogram.

    Otsu's threshold (of the square root, so that dense glands do not outweigh fat) tells what is surely tissue from
    background; the limit is then lowered towards the background's own level, which may differ from 0 as on film. What
    is thin is cut off, and the largest piece that is left is the breast. An image whose darker part is no flat
    background, such as a spot view, is tissue all over.

    Args:
        image: [C, H, W], bright = dense, in any units; the mean over the channels counts.

    Raises:
        RadiographError: if the image is empty, holds values that are not finite, or only one value.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979) 62-66.
    """
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    stride = max(1, math.ceil(max(shape) / _SAMPLES))
    pool = max(1, math.ceil(max(shape) / stride / _SIDE))
    sample = image[:, ::stride, ::stride].to(torch.float32).mean(0, keepdim=True)[None]
    extremes(image)
    small = F.avg_pool2d(sample, pool, ceil_mode=True, count_include_pad=False)[0, 0].numpy(force=True)
    low, high = extremes(small)
    if low == high:
        raise RadiographError(f"holds one value only, {low:g}: there is no tissue to find")
    levels = np.sqrt((small - low) / (high - low))
    threshold = _otsu(levels)
    dark = levels[levels <= threshold]
    background = float(np.median(dark))
    spread = float(np.median(np.abs(dark - background)))
    if spread > _FLAT * (float(np.median(levels[levels > threshold])) - background):
        return Tissue(np.ones_like(levels, dtype=bool), stride * pool, shape, low)
    mask = _largest(levels > background + max(_LIMIT * (threshold - background), 3 * spread))
    return Tissue(mask, stride * pool, shape, low + (high - low) * background**2)


def _otsu(levels: np.ndarray) -> float:
    """Threshold in 0..1 that parts values of 0..1 with the largest variance between the two classes."""
    counts, edges = np.histogram(levels, bins=_BINS, range=(0.0, 1.0))
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum()[:-1], counts[::-1].cumsum()[::-1][1:]
    sums = (counts * centers).cumsum()
    between = below * above * (sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)) ** 2
    return float(edges[1 + between.argmax()])


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask without what is thin, its holes filled; the same shape."""
    radius = max(1, round(_OPENING * max(mask.shape)))
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = rows**2 + columns**2 <= radius**2
    opened = ndimage.binary_opening(mask, disk)
    pieces, number = ndimage.label(opened if opened.any() else mask)
    if number > 1:
        pieces = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return ndimage.binary_fill_holes(ndimage.binary_dilation(pieces, disk) & mask)
