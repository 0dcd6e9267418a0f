r"""The geometry of an image by its affine: the size of its pixels, and towards which sides of the patient they run.

The metadata of a file (`original_affine`, `original_spacing`, `patient_orientation`) tell how it was stored. Resizing,
cropping, mirroring and turning change the affine of a MetaTensor and nothing else, MONAI's own transforms as well as
those of this package. So the affine is the one truth about the present, and everything here is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.utils import MetaKeys

_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}


def pixel_spacing(meta: Mapping[str, Any]) -> tuple[float, float] | None:
    """Distance between the rows and between the columns of an image as it is now.

    Args:
        meta: metadata of an image that `RadiographReader` read, `image.meta`; of other readers the affine alone counts.

    Returns:
        mm between rows and between columns; None where the file does not tell it.
    """
    original = meta.get("original_spacing")
    if original is not None and not np.all(np.isfinite(np.asarray(original, dtype=np.float64))):
        return None
    rows, columns = (float(size) for size in np.linalg.norm(_axes(meta.get(MetaKeys.AFFINE)), axis=0))
    return rows, columns


def patient_orientation(meta: Mapping[str, Any]) -> str:
    r"""Towards which sides of the patient the rows and the columns of an image run, as it is now.

    Args:
        meta: metadata of an image that `RadiographReader` read, `image.meta`.

    Returns:
        the direction in which a row runs, from the left to the right of the picture, and that in which a column runs,
        downwards, such as "L\F"; "" where the file does not tell it.

    Source: DICOM PS3.3 C.7.6.1.1.1 (Patient Orientation).
    """
    stored = str(meta.get("patient_orientation", "")).split("\\")
    if len(stored) != 2 or not all(stored):
        return ""
    towards = stored[::-1]  # axis 0 of the array runs down the columns, which the header names second
    relative = np.linalg.solve(_axes(meta.get(MetaKeys.ORIGINAL_AFFINE)), _axes(meta.get(MetaKeys.AFFINE)))
    now = []
    for axis in range(2):
        source = int(np.abs(relative[:, axis]).argmax())
        now.append(towards[source] if relative[source, axis] > 0 else opposite_sides(towards[source]))
    return "\\".join(now[::-1])


def opposite_sides(direction: str) -> str:
    """Each letter of a direction for its opposite: "AR" becomes "PL"; what is no such letter stays."""
    return "".join(_OPPOSITE.get(letter, letter) for letter in direction)


def _axes(affine: Any) -> np.ndarray:
    """The steps along the two axes of an image in its plane, [2, 2], one a column; the identity where unknown."""
    if affine is None:
        return np.eye(2)
    matrix = np.asarray(affine, dtype=np.float64)[:2, :2]
    return matrix if abs(np.linalg.det(matrix)) > 0 else np.eye(2)
