"""Answers as files that viewers can open: scores as points of 3D Slicer's Markups, heat maps as label images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cleft_bundle.data.images.formats import sniff
from cleft_bundle.files import save_text
from cleft_bundle.inference import HeatMaps
from cleft_bundle.networks.heat_maps import SCALE, UNIT

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
#: From which value on each label of a heat map's label image counts, in UNIT.
LEVELS = tuple(share * SCALE for share in (0.25, 0.5, 0.75))
_LINES = 30  # of text that fit one below the other onto an image


def patient_affine(path: str | Path, spacing: np.ndarray) -> np.ndarray:
    """Affine by which viewers place the pixels of a radiograph.

    A NIfTI file says so itself. Else column and row run to the left and down the patient's coordinates, from their
    origin, as ITK and 3D Slicer place pictures and DICOM files that have no position, which projections do not have.

    Args:
        path: the image.
        spacing: mm between rows and between columns, nan where unknown (taken as 1).

    Returns:
        [4, 4], from column, row and 0 to mm in RAS.
    """
    if sniff(str(path)) == "nifti":
        volume: Any = nib.load(path)
        return np.asarray(volume.affine, dtype=np.float64)
    height, width = np.nan_to_num(spacing, nan=1.0)
    return np.diag([-width, -height, 1.0, 1.0])


def write_markups(path: str | Path, scores: Mapping[str, float], shape: tuple[int, int], affine: np.ndarray) -> None:
    """Write scores as a list of points at the left of the image, each labelled with its class and score.

    Args:
        path: receives the JSON file, which 3D Slicer opens as Markups.
        scores: names of classes to probabilities, in the order of the list.
        shape: rows and columns of the image.
        affine: what :func:`patient_affine` gives.
    """
    rows, columns = shape
    step = rows / max(_LINES, len(scores) + 1)
    points = []
    for number, (name, score) in enumerate(scores.items(), start=1):
        right, anterior, superior, _ = affine @ [0.03 * columns, number * step, 0.0, 1.0]
        points.append(
            {
                "id": str(number),
                "label": f"{name} {score:.3f}",
                "description": f"probability of {name}",
                "associatedNodeID": "",
                "position": [-right, -anterior, superior],  # LPS
                "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
                "selected": True,
                "locked": True,
                "visibility": True,
                "positionStatus": "defined",
            }
        )
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
    }
    save_text(json.dumps({"@schema": MARKUPS_SCHEMA, "markups": [markup]}, indent=1), path)


def heat_levels(heat: np.ndarray) -> np.ndarray:
    """A heat map [H, W] as labels: uint8 [H, W], the number of :data:`LEVELS` that a pixel reaches."""
    return np.digitize(heat, LEVELS).astype(np.uint8)


def level_names(finding: str) -> dict[str, int]:
    """Names of the labels of :func:`heat_levels`, and their values."""
    return {f"{finding}, {level:g} or more": number for number, level in enumerate(LEVELS, start=1)}


def note(finding: str | None, scores: Mapping[str, float], maps: HeatMaps) -> str:
    """Facts about a heat map: score, threshold, whether the finding is called, and the unit."""
    if finding is None:
        return "no finding is called" if maps.decides else "the classes have no thresholds: name one"
    return f"{finding}: {maps.verdict(finding, scores).sentence}; labels in {UNIT}"


def prediction(scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """Scores in the form of MONAI Label's ``ClassificationWriter``."""
    return [{"idx": number, "label": name, "score": score} for number, (name, score) in enumerate(scores.items())]
