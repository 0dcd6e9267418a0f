"""Images that are no radiographs of the kind that a classifier knows, and how many of them it flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.stats import binomtest

from cleft_bundle.inference import Predictor

_SIDE = 256  # pixels of images that are made here
_WORDS = ["patient", "seen", "in", "clinic", "on", "ward", "with", "no", "change", "of", "therapy", "returns", "weeks"]


def noise(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Images of noise, uint8 [256, 256]: fine, coarse, and with the brightness of a radiograph."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        grain = (1, 4, 16)[number % 3]
        small = rng.random((_SIDE // grain, _SIDE // grain)) ** rng.uniform(0.5, 2)
        picture = Image.fromarray((255 * small).astype(np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        yield np.asarray(picture.filter(ImageFilter.GaussianBlur(grain / 4)))


def pages(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Scans of text, uint8 [256, 256], dark on bright."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = int(rng.integers(9, 22))
        page = Image.new("L", (_SIDE, _SIDE), int(rng.integers(200, 256)))
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
        for top in range(8, _SIDE - size, size + 4):
            draw.text((8, top), " ".join(rng.choice(_WORDS, 12)), int(rng.integers(0, 80)), font=font)
        yield np.asarray(page)


def crops(images: Sequence[np.ndarray], count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Random squares of images [H, W] or [H, W, 3], as many of each, of a half to the whole of the shorter side."""
    rng = np.random.default_rng(seed)
    for image in images:
        for _ in range(count):
            side = int(min(image.shape[:2]) * rng.uniform(0.5, 1))
            top, left = (int(rng.integers(0, whole - side + 1)) for whole in image.shape[:2])
            yield image[top : top + side, left : left + side]


def flagged(
    predictor: Predictor, groups: Mapping[str, Any], patients: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Share of the images of each group that a classifier flags as unusual.

    Args:
        predictor: a classifier that knows typicality.
        groups: names to images as :meth:`Predictor.predict` takes them.
        patients: of the images of the first group, which then counts patients: one with an unusual image is flagged.

    Returns:
        for each group ``group``, ``count`` of images or patients, ``flagged`` and its 95 % interval (Wilson) ``low``
        and ``high``, shares in 0..1, and ``typicality``, the median. Images that cannot be read do not count.
    """
    rows = []
    for place, (name, images) in enumerate(groups.items()):
        table = predictor.predict(images).scores
        unusual = table["unusual"].astype(bool)
        if place == 0 and patients is not None:
            unusual = unusual.groupby(list(patients)).any()
        else:
            unusual = unusual[table["error"] == ""]
        interval = binomtest(int(unusual.sum()), len(unusual)).proportion_ci(method="wilson")
        share = {"flagged": float(unusual.mean()), "low": interval.low, "high": interval.high}
        rows.append({"group": name, "count": len(unusual), **share, "typicality": float(table["typicality"].median())})
    return rows


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of what :func:`flagged` returns."""
    lines = ["| images | number | flagged, % (95 % interval) | median typicality |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        share = f"{100 * row['flagged']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        lines.append(f"| {row['group']} | {row['count']} | {share} | {row['typicality']:.2g} |")
    return "\n".join(lines)
