"""Masks that tables write as run lengths: those of the SIIM-ACR challenge, and COCO's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError


def relative_mask(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Decode the run lengths of the SIIM-ACR challenge.

    Args:
        text: pairs of whole numbers: pixels to skip since the end of the run before, and pixels of the run. Pixels are
            counted down each column, column by column.
        shape: rows and columns of the image.

    Returns:
        bool [rows, columns].

    Raises:
        BundleError: it is no such text, or runs beyond the image.

    Examples:
        >>> relative_mask("1 2 1 1", (2, 3)).astype(int).tolist()
        [[0, 1, 1], [1, 0, 0]]
    """
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except ValueError as error:
        raise BundleError("run lengths: expected whole numbers") from error
    if not len(numbers) or len(numbers) % 2 or (numbers[::2] < 0).any() or (numbers[1::2] <= 0).any():
        raise BundleError("run lengths: expected pairs of pixels to skip, 0 or more, and pixels to mark, 1 or more")
    return _filled(np.append(numbers, 0), shape)


def coco_mask(encoded: Mapping[str, Any]) -> np.ndarray:
    """Decode a mask in COCO's run lengths, compressed or not, as ``pycocotools.mask.decode`` does.

    Args:
        encoded: ``size``, [rows, columns], and ``counts``: pixels outside, inside, outside, ... the mask down each
            column, as a list or as COCO's text of 6 bits a character (``rleToString`` of its ``maskApi.c``).

    Returns:
        bool [rows, columns].

    Raises:
        BundleError: it is no such mask, or its runs are not as many as the image's pixels.

    Examples:
        >>> coco_mask({"size": [2, 3], "counts": [1, 2, 3]}).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0]]
    """
    size, counts = encoded.get("size"), encoded.get("counts")
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise BundleError(f"mask: expected a size of rows and columns, got {size}")
    runs = np.array(_uncompressed(counts) if isinstance(counts, str | bytes) else counts, dtype=np.int64)
    rows, columns = size
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != rows * columns:
        raise BundleError(f"mask: expected runs of {rows * columns} pixels in all")
    return _filled(runs, (rows, columns))


def _uncompressed(text: str | bytes) -> list[int]:
    """The counts of COCO's text: 5 bits a character from the lowest, a sixth where more follow, differences of two."""
    counts: list[int] = []
    value, shift = 0, 0
    for code in text.encode("ascii", "replace") if isinstance(text, str) else text:
        chunk = code - 48
        if not 0 <= chunk < 64:
            raise BundleError("mask: expected counts in COCO's characters")
        value |= (chunk & 31) << shift
        shift += 5
        if not chunk & 32:
            if chunk & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    return counts


def _filled(runs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask of runs that lie outside and inside in turn, down the columns; what is left of the image is outside."""
    total = shape[0] * shape[1]
    if runs.sum() > total:
        raise BundleError(f"run lengths: they end beyond the {total} pixels of the image")
    flat = np.zeros(total, dtype=bool)
    inside = np.arange(len(runs)) % 2 == 1
    flat[: runs.sum()] = np.repeat(inside, runs)
    return flat.reshape(shape, order="F")


def box_of(mask: np.ndarray) -> list[float]:
    """The box around a mask [rows, columns] that marks a pixel: [x, y, width, height] from the upper left corner."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise BundleError("mask: it marks no pixel, so there is no box around it")
    edges = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return [float(edge) for edge in edges]
