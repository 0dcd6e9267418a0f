"""Heat maps drawn over the radiographs that they explain, and what has to stand beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from monai.visualize import blend_images
from PIL import Image, ImageDraw, ImageFont

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.heat_maps import SCALE, UNIT

#: Colours of even steps in lightness that never turn grey, so that they stand apart from the radiograph.
COLOURS = "plasma"
BOX = (0, 220, 255)
_OPACITY = 0.65  # of the strongest colour
_DARKEST = 0.25  # where COLOURS begin: what is darker is lost on a lung
_GROUND, _TEXT, _QUIET = (18, 20, 24), (240, 240, 240), (170, 175, 182)
_NARROWEST = 420  # pixels that the text under a picture needs
_LARGEST = 1024  # pixels that the longest side of an enlarged picture has at most


def heat_overlay(
    image: np.ndarray,
    heat: np.ndarray,
    scale: float = SCALE,
    boxes: Sequence[Sequence[float]] = (),
    longest_side: int | None = None,
) -> np.ndarray:
    """Draw one heat map over its radiograph.

    The radiograph's values are stretched between their 1st and 99th percentile. The map is clear at 0 and below, and
    colours grow with its values up to `scale`, which is the same for all maps: a weak map looks weak, and one without
    anything in it colours nothing.

    Args:
        image: [H, W], bright is dense.
        heat: [H, W], higher where the evidence is, as of :func:`cleft_bundle.networks.heat_maps.class_maps`.
        scale: the value of the strongest colour.
        boxes: [x, y, width, height] in pixels, drawn as outlines.
        longest_side: shrink the picture to it, in pixels; None keeps its size.

    Returns:
        uint8 [H', W', 3].

    Raises:
        BundleError: where image and map differ in size, or the scale is not above 0.
    """
    if image.ndim != 2 or image.shape != heat.shape:
        raise BundleError(
            f"heat overlay: expected an image and a map [H, W] of one size, got {image.shape}, {heat.shape}"
        )
    if not scale > 0:
        raise BundleError(f"heat map: expected a scale above 0, got {scale}")
    picture = Image.fromarray(_blend(_stretch(image), np.clip(heat.astype(np.float32) / scale, 0, 1)))
    ratio = 1.0 if longest_side is None else min(1.0, longest_side / max(image.shape))
    if ratio < 1:
        picture = picture.resize([max(1, round(side * ratio)) for side in picture.size], Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for x, y, width, height in boxes:
        corners = [x * ratio, y * ratio, (x + width) * ratio - 1, (y + height) * ratio - 1]
        pen.rectangle(corners, outline=BOX, width=max(1, round(max(picture.size) / 250)))
    return np.asarray(picture)


def captioned(picture: np.ndarray, title: str, lines: Sequence[str], scale: float = SCALE) -> np.ndarray:
    """Put under a picture of :func:`heat_overlay` what it shows, and the colour bar.

    A picture too narrow for text is enlarged, and stands in the middle where that does not do.

    Args:
        picture: uint8 [H, W, 3].
        title: the finding; a long one takes more lines. Characters that the font lacks are given by their codes.
        lines: what is known of it, in small print.
        scale: the value of the strongest colour, in :data:`cleft_bundle.networks.heat_maps.UNIT`.

    Returns:
        uint8 [H', W', 3]: the picture with the caption under it.
    """
    above = Image.fromarray(picture)
    times = max(1, min(-(-_NARROWEST // above.width), _LARGEST // max(above.size)))
    if times > 1:
        above = above.resize((above.width * times, above.height * times), Image.Resampling.BICUBIC)
    width = max(above.width, _NARROWEST)
    size = max(13, round(min(width, above.height) / 42))
    margin = size
    large, small = _font(round(size * 1.25), "bold"), _font(size)
    texts = [(line, large, _TEXT) for line in _wrap(title, large, width - 2 * margin)]
    texts += [(line, small, _TEXT) for text in lines for line in _wrap(text, small, width - 2 * margin)]
    height = sum(round(font.size * 1.4) for _, font, _ in texts) + 2 * margin + round(4.2 * size)
    whole = Image.new("RGB", (width, above.height + height), _GROUND)
    whole.paste(above, ((width - above.width) // 2, 0))
    pen = ImageDraw.Draw(whole)
    y = above.height + margin
    for line, font, colour in texts:
        pen.text((margin, y), line, font=font, fill=colour)
        y += round(font.size * 1.4)
    _bar(whole, margin, y + round(0.4 * size), width - 2 * margin, size, scale)
    return np.asarray(whole)


def _bar(whole: Image.Image, x: int, y: int, width: int, size: int, scale: float) -> None:
    """Draw the colours from 0 to `scale` as they look on a middle grey, with values and the unit under them."""
    strength = np.tile(np.linspace(0, 1, width, dtype=np.float32), (size, 1))
    whole.paste(Image.fromarray(_blend(np.full_like(strength, 0.45), strength)), (x, y))
    pen, font = ImageDraw.Draw(whole), _font(round(size * 0.9))
    for share, anchor in zip((0, 0.25, 0.5, 0.75, 1), ("la", "ma", "ma", "ma", "ra"), strict=True):
        place = x + round(share * (width - 1))
        value = f"{'≥ ' if share == 1 else ''}{share * scale:.3g}"
        pen.line([(place, y + size), (place, y + size + 3)], fill=_QUIET)
        pen.text((place, y + size + 5), value, font=font, fill=_QUIET, anchor=anchor)
    pen.text((x, y + round(2.5 * size)), UNIT, font=font, fill=_QUIET)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 3) -> list[str]:
    """A text in lines that fit, broken between words where there are any, cut after `most` lines."""
    lines = [""]
    for word in _legible(text).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:  # of a word that is longer than a line
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    if len(lines) > most:
        lines = lines[:most]
        while lines[-1] and font.getlength(lines[-1] + " …") > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += " …"
    return lines


def _legible(text: str) -> str:
    """A text in characters that can be drawn: others as their codes."""
    known = _characters()
    drawn = (c if c == " " or (c.isprintable() and ord(c) in known) else ascii(c)[1:-1] for c in text)
    return "".join(drawn)


@lru_cache(maxsize=8)
def _font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties("DejaVu Sans", weight=weight)), size)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _blend(grey: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colours by strength over a picture, both [H, W] of 0 to 1: uint8 [H, W, 3]."""
    blended = blend_images(
        grey[None],
        (_DARKEST + (1 - _DARKEST) * strength)[None],
        alpha=_OPACITY * strength[None],
        cmap=COLOURS,
        rescale_arrays=False,
        transparent_background=False,
    )
    return (np.moveaxis(np.clip(blended, 0, 1), 0, -1) * 255).astype(np.uint8)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Bring the 1st percentile to 0 and the 99th to 1 and clip; all 0 where they are equal."""
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
