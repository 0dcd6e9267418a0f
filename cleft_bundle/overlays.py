"""Heat maps drawn over the radiographs that they explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.visualize import blend_images
from PIL import Image, ImageDraw

from cleft_bundle.errors import BundleError

#: Colours of even steps in lightness that never turn grey, so that they stand apart from the radiograph.
COLOURS = "plasma"
BOX = (0, 220, 255)


def overlay(
    image: np.ndarray,
    heat: np.ndarray,
    boxes: Sequence[Sequence[float]] = (),
    opacity: float = 0.6,
    longest_side: int | None = None,
) -> np.ndarray:
    """Draw one heat map over its radiograph.

    The radiograph's values are stretched between their 1st and 99th percentile. The upper quarter of the map is shown,
    from clear to `opacity` at its maximum; the rest of the picture stays a plain radiograph. A map without any
    difference in it colours nothing.

    Args:
        image: [H, W], bright is dense.
        heat: [H, W], higher where the evidence is.
        boxes: [x, y, width, height] in pixels, drawn as outlines.
        opacity: of the strongest colour, 0..1.
        longest_side: shrink the picture to it, in pixels; None keeps its size.

    Returns:
        uint8 [H', W', 3].

    Raises:
        BundleError: where image and map differ in size.
    """
    if image.ndim != 2 or image.shape != heat.shape:
        raise BundleError(f"overlay: expected an image and a map [H, W] of one size, got {image.shape}, {heat.shape}")
    grey = _stretch(image, *np.percentile(image, (1, 99)))
    strength = _stretch(heat, float(np.quantile(heat, 0.75)), float(heat.max()))
    blended = blend_images(
        grey[None],
        strength[None],
        alpha=opacity * strength[None],
        cmap=COLOURS,
        rescale_arrays=False,
        transparent_background=False,
    )
    picture = Image.fromarray((np.moveaxis(np.clip(blended, 0, 1), 0, -1) * 255).astype(np.uint8))
    scale = 1.0 if longest_side is None else min(1.0, longest_side / max(image.shape))
    if scale < 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for x, y, width, height in boxes:
        corners = [x * scale, y * scale, (x + width) * scale - 1, (y + height) * scale - 1]
        pen.rectangle(corners, outline=BOX, width=max(1, round(max(picture.size) / 250)))
    return np.asarray(picture)


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bring `low` to 0 and `high` to 1 and clip; all 0 where they are equal."""
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
