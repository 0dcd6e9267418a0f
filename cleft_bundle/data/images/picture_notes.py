"""Notes that `RadiographWriter` leaves in a picture file: PNG, TIFF and NIfTI have no place for it of their own.

A note is a line of JSON, in a text chunk of a PNG, in the ImageDescription of a TIFF, in a comment of a NIfTI. With it
the reader gives the values that were written; it would stretch them over their own range otherwise. It holds nothing
of the patient. A file may come from anywhere, or have been edited since: what is not as it should be does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = "cleft_bundle"
DEPTH = 65535  # the highest value of 16 bits
_TEXTS = {
    "modality": re.compile(r"[A-Z0-9_ ]{1,16}"),
    "view": re.compile(r"[A-Z0-9_ ]{1,16}"),
    "laterality": re.compile(r"[LRB]"),
    "patient_orientation": re.compile(r"[APRLHF]{1,3}\\[APRLHF]{1,3}"),
}


@dataclass(frozen=True)
class Note:
    """Facts that a picture states about itself.

    Attributes:
        shape: rows and columns.
        dtype: of the pixels in the file, "uint16" or "float32".
        levels: None, or the whole number of steps from 0 to 1 of which all values are multiples.
        spacing: mm between rows and between columns, or None.
        texts: modality, view, laterality and patient_orientation, as in the reader's metadata, where known.
    """

    shape: tuple[int, int]
    dtype: str
    levels: int | None
    spacing: tuple[float, float] | None
    texts: Mapping[str, str]

    def text(self) -> str:
        """The note as a line of JSON."""
        content = {**self.texts, "shape": self.shape, "dtype": self.dtype, "levels": self.levels}
        return json.dumps({NAME: 1, "spacing": self.spacing, **content}, sort_keys=True)

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """The values that were written: float32 [H, W] in 0..1 of the pixels in the file."""
        if self.dtype == "uint16":
            levels = self.levels or DEPTH
            return (np.rint(pixels * (levels / DEPTH)) / levels).astype(np.float32)
        return np.array(pixels, dtype=np.float32)

    @property
    def details(self) -> dict[str, Any]:
        """Metadata that the reader takes from it."""
        return {**self.texts, "spacing": self.spacing}


def known_texts(meta: Mapping[str, Any]) -> dict[str, str]:
    """Those of an image's metadata that a note may hold, where they are what they should be."""
    return {name: str(meta[name]) for name, rule in _TEXTS.items() if rule.fullmatch(str(meta.get(name, "")))}


def read_note(text: object, pixels: np.ndarray) -> Note | None:
    """Read the note of a picture.

    Args:
        text: what stands where a note would be, of any type.
        pixels: [H, W] as stored; a note about pixels of another size or type is one of an older state of the file.

    Returns:
        the note, or None where there is none that holds.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not isinstance(text, str) or NAME not in text:
        return None
    try:
        content = json.loads(text.strip("\0 \n"))
        spacing, levels = content["spacing"], content["levels"]
        note = Note(
            shape=(int(content["shape"][0]), int(content["shape"][1])),
            dtype=str(content["dtype"]),
            levels=None if levels is None else int(levels),
            spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
            texts=known_texts(content),
        )
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    stored = pixels.dtype.newbyteorder("=").name
    fits = pixels.shape == note.shape and (stored == note.dtype or (stored, note.dtype) == ("int32", "uint16"))
    sized = note.spacing is None or all(0 < size < np.inf for size in note.spacing)
    stepped = note.levels is None or 0 < note.levels <= DEPTH
    return note if fits and sized and stepped and _in_range(pixels, note.dtype) else None


def _in_range(pixels: np.ndarray, dtype: str) -> bool:
    """Whether stored pixels are such as the writer writes."""
    ends = {"uint16": (0, DEPTH), "float32": (0.0, 1.0)}.get(dtype)
    return ends is not None and pixels.size > 0 and bool(ends[0] <= pixels.min() <= pixels.max() <= ends[1])


def count_levels(image: np.ndarray, samples: int = 16) -> int | None:
    """The smallest number of steps from 0 to 1 of which all values of an image are multiples, as a float32 can tell.

    An image of 12 bits over its whole range has 4095; one that was resized has none.

    Args:
        image: float32, any shape, 0..1.
        samples: values that sort out most numbers before all are looked at.

    Returns:
        1..65535, or None where there is no such number.
    """
    values = np.unique(image).astype(np.float64)
    if len(values) > DEPTH + 1:
        return None
    numbers = np.arange(1, DEPTH + 1)
    for value in values[np.linspace(0, len(values) - 1, min(samples, len(values))).astype(int)]:
        numbers = numbers[_is_multiple(value, numbers)]
    return next((int(number) for number in numbers[:samples] if _is_multiple(values, number).all()), None)


def _is_multiple(values: Any, number: Any) -> Any:
    steps = values * number
    return np.abs(steps - np.rint(steps)) <= np.maximum(steps, 1) * 2.0**-23
