"""The pointing game: does a heat map peak where the finding is?

Zhang et al., "Top-Down Neural Attention by Excitation Backprop", International Journal of Computer Vision 2018,
https://doi.org/10.1007/s11263-017-1059-x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from cleft_bundle.errors import BundleError
from studies.chexlocalize import fitted

#: Zhang et al. count a point up to this many pixels beside a box as a hit, on photographs about 500 pixels long.
TOLERANCE = 15.0


#: One or more [x, y, width, height] in pixels from the upper left corner, or a mask, bool [H, W].
Marks = Sequence[Sequence[float]] | np.ndarray


def pointing_hit(heat_map: np.ndarray, marks: Marks, tolerance: float = TOLERANCE) -> float:
    """True where the maximum of a heat map lies in one of the boxes, or in the mask.

    Where several pixels share the maximum, the hit is the part of them that lies in a box: a map that is flat, as a
    rectified map without any evidence is, scores what a point at random would.

    Args:
        heat_map: float [H, W], higher where the evidence is.
        marks: boxes [x, y, width, height] in pixels from the upper left corner, as in RSNA's table, or a mask,
            bool [H, W].
        tolerance: distance in pixels, centre to centre, at which a point beside them still hits. 0 is the strict game.

    Returns:
        1.0 or 0.0, or a part for a shared maximum.

    Raises:
        BundleError: where the map is not finite, a box is none, or the mask marks nothing or has another shape.
    """
    if heat_map.ndim != 2 or not np.isfinite(heat_map).all():
        raise BundleError(f"pointing game: expected a finite map [H, W], got shape {heat_map.shape} or NaN or infinity")
    return float(_target(heat_map.shape, marks, tolerance)[heat_map == heat_map.max()].mean())


def pointing_chance(shape: tuple[int, int], marks: Marks, tolerance: float = TOLERANCE) -> float:
    """Chance that a point at random hits: the share of the picture that counts, 0..1; arguments as `pointing_hit`."""
    return float(_target(shape, marks, tolerance).mean())


def boxes_by_finding(item: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    """The boxes of an item by the finding that each marks.

    Args:
        item: with ``boxes`` [[x, y, width, height], ...] and ``box_findings``, a name a box, or without either.

    Raises:
        BundleError: where they are not of one length.
    """
    boxes, names = item.get("boxes", []), item.get("box_findings", [])
    if len(boxes) != len(names):
        raise BundleError(f"an item has {len(boxes)} boxes, but {len(names)} box_findings: expected a finding a box")
    found: dict[str, list[list[float]]] = {}
    for name, box in zip(names, boxes, strict=True):
        found.setdefault(name, []).append(list(box))
    return found


def marks_by_finding(item: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Marks]:
    """The masks of an item by finding, at the size of the map, and its boxes where a finding has no mask.

    Args:
        item: with ``masks``, bool [rows, columns] by finding, or as for :func:`boxes_by_finding`.
        shape: rows and columns of the map.
    """
    masks = {name: fitted(mask, shape) for name, mask in item.get("masks", {}).items()}
    return {**boxes_by_finding(item), **{name: mask for name, mask in masks.items() if mask.any()}}


def _target(shape: tuple[int, ...], boxes: Marks, tolerance: float) -> np.ndarray:
    """The pixels that hit, bool [H, W]."""
    if tolerance < 0:
        raise BundleError(f"tolerance: expected 0 or more pixels, got {tolerance}")
    if isinstance(boxes, np.ndarray) and boxes.dtype == bool:
        if boxes.shape != tuple(shape) or not boxes.any():
            raise BundleError(f"pointing game: expected a mask of shape {tuple(shape)} that marks a pixel")
        return distance_transform_edt(~boxes) <= tolerance
    if not len(boxes) or any(len(box) != 4 or min(box[2:]) <= 0 for box in boxes):
        raise BundleError(f"pointing game: expected one or more [x, y, width, height] with a size, got {list(boxes)}")
    target = np.zeros(shape, bool)
    for x, y, width, height in boxes:
        across = _beside(shape[1], x, width)
        down = _beside(shape[0], y, height)
        target |= np.hypot(down[:, None], across[None, :]) <= tolerance
    return target


def _beside(length: int, start: float, size: float) -> np.ndarray:
    """Distance of each pixel along an axis from the first or last pixel of a box, 0 within."""
    pixels = np.arange(length)
    return np.maximum(0, np.maximum(start - pixels, pixels - (start + size - 1)))
