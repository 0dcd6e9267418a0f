"""Breast phantoms: MG files below EMBED's tables (Jeong et al., Radiology: Artificial Intelligence 2023).

The metadata table has one row per image, the clinical table one row per finding, and both meet on `acc_anon`. What is
drawn decides the assessment letter: see ASSESSED.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cleft_bundle.data.phantoms import dicom, folder
from cleft_bundle.data.phantoms.breast_scene import Breast, Lesion, draw
from cleft_bundle.data.phantoms.breast_tables import CLINICAL, LEGEND, LEGEND_COLUMNS, METADATA
from cleft_bundle.data.phantoms.shapes import Pose, expose

VERSION = 1
LETTERS = {"N": 0.38, "B": 0.18, "P": 0.12, "S": 0.14, "M": 0.1, "A": 0.05, "K": 0.03}
"""Assessment letter of a breast -> how often it is drawn."""

ASSESSED = {
    "B": (("R", "D", ""), ("", "", "C")),
    "P": (("O", "D", ""), ("", "", "P")),
    "S": (("X", "I", ""), ("", "", "A"), ("", "", "I")),
    "M": (("X", "S", ""), ("X", "S", "F")),
    "A": (("F", "I", ""),),
    "K": (("X", "S", "I"),),
}
"""Assessment letter -> what may be seen: (mass shape, mass margin, calcifications) in EMBED's codes."""

MASS_DENSITY = {"R": "-", "O": "=", "F": "=", "X": "+"}
PATHOLOGY = {"S": (1, 2, 4), "M": (0, 1), "K": (0,)}
VIEWS = tuple((side, view) for side in "LR" for view in ("CC", "MLO"))


def breast(root: str, patients: int = 200, seed: int = 0) -> str:
    """Draw a set of mammography phantoms, unless it is there already.

    Each phantom patient has one exam of four views. The set's folder holds `images/phantomNNNNN/...dcm` and
    `tables/` with EMBED's metadata, clinical table and legend. There is no split: EMBED has none either.

    Args:
        root: folder below which the set's folder is made.
        patients: number of phantom patients, at least 5.
        seed: each patient depends on (seed, number of the patient) alone.

    Returns:
        Path of the set's folder, whose name carries kind, version, number and seed.

    Raises:
        BundleError: a number is out of range, or the folder cannot be written.
    """
    return folder.build("breast", VERSION, root, patients, seed, lambda target: _fill(target, patients, seed))


def _fill(target: Path, patients: int, seed: int) -> None:
    metadata: list[dict[str, object]] = []
    clinical: list[dict[str, object]] = []
    for images, findings in folder.draw_patients(partial(_patient, target, seed), patients, "breast"):
        metadata += images
        clinical += findings
    _table(target / "tables" / "EMBED_OpenData_metadata_phantom.csv", METADATA, metadata)
    _table(target / "tables" / "EMBED_OpenData_clinical_phantom.csv", CLINICAL, clinical)
    legend = [dict(zip(LEGEND_COLUMNS, row, strict=True)) for row in LEGEND]
    _table(target / "tables" / "AWS_Open_Data_Clinical_Legend.csv", LEGEND_COLUMNS, legend)


def _table(path: Path, columns: tuple[str, ...], rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _patient(target: Path, seed: int, index: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Draw and write one phantom patient's exam; give the rows of both tables."""
    number = index + 1
    # The third number keeps these pictures independent of the chest phantoms of the same seed.
    rng = np.random.default_rng([seed, number, 1])
    age, density = int(rng.integers(35, 86)), int(rng.integers(1, 5))
    size = {"reach": rng.uniform(0.48, 0.62), "half_height": rng.uniform(0.75, 0.85)}
    letters = {side: str(rng.choice(list(LETTERS), p=list(LETTERS.values()))) for side in "LR"}
    findings = {side: _findings(rng, letters[side]) for side in "LR"}
    day = f"{number % 28 + 1:02d}"
    exam = {
        "empi_anon": 900_000 + number,
        "acc_anon": 9_000_000 + number,
        "study_date_anon": f"2000-01-{day}",
    }
    images: list[dict[str, object]] = []
    for instance, (side, view) in enumerate(VIEWS, start=1):
        path = Path("images", f"phantom{number:05d}", "study1", f"{side}_{view}.dcm")
        pose = Pose(
            height=int(rng.integers(352, 401)), width=int(rng.integers(272, 305)), shift=(0.0, rng.uniform(-0.05, 0.05))
        )
        lesions = [lesion for _, lesion in findings[side]]
        scene, mask = draw(rng, Breast(side, density, lesions=lesions, **size), view, pose)
        # The share of air differs from breast to breast, so it is the breast's own mean that is drawn.
        grey = expose(scene, rng.uniform(0.4, 0.54) * float(mask.mean()))
        header = dicom.Header("breast", number, 1, instance, seed, "F", age, f"200001{day}", view, side)
        dicom.write(target / path, grey, header, rng)
        images.append(
            exam
            | {
                "anon_dicom_path": path.as_posix(),
                "FinalImageType": "2D",
                "ImageLateralityFinal": side,
                "ViewPosition": view,
                "StudyDescription": "PHANTOM mammogram, no patient",
                "Manufacturer": "cleft_bundle phantom",
            }
        )
    person = {
        "tissueden": density,
        "age_at_study": age,
        "RACE_DESC": "Phantom",
        "ETHNIC_GROUP_DESC": "Phantom",
    }
    rows = [exam | person | row for row in _clinical(rng, letters, findings)]
    return images, [row | {"numfind": index} for index, row in enumerate(rows, start=1)]


def _findings(rng: np.random.Generator, letter: str) -> list[tuple[str, Lesion]]:
    """Lesions of one breast, each with its own letter; a third of the worse ones come with a benign second finding."""
    if letter == "N":
        return []
    letters = [letter] + (["B"] if letter in "PSM" and rng.random() < 0.3 else [])
    found = []
    for place, own in enumerate(letters):
        shape, margin, calcification = ASSESSED[own][rng.integers(len(ASSESSED[own]))]
        # Two findings keep apart: the first lies in the lower half, the second in the upper.
        height = rng.uniform(0.05, 0.35) * (1 if place == 0 else -1)
        size = rng.uniform(0.13, 0.18)
        depth = rng.uniform(0.35, 0.65)
        grain = int(rng.integers(2**31))
        found.append((own, Lesion(shape, margin, calcification, size, depth, height, own == "K", grain)))
    return found


def _clinical(
    rng: np.random.Generator, letters: dict[str, str], findings: dict[str, list[tuple[str, Lesion]]]
) -> list[dict[str, object]]:
    """Rows of the clinical table: one for an exam without findings, else one a finding and one a negative breast."""
    if letters["L"] == letters["R"] == "N":
        return [{"side": str(rng.choice(["B", ""])), "asses": "N"}]
    rows: list[dict[str, object]] = []
    for side in "LR":
        if letters[side] == "N":
            rows.append({"side": side, "asses": "N"})
        for letter, lesion in findings[side]:
            rows.append(
                {
                    "side": side,
                    "asses": letter,
                    "massshape": lesion.shape,
                    "massmargin": lesion.margin,
                    "massdens": MASS_DENSITY.get(lesion.shape, ""),
                    "calcfind": lesion.calcification,
                    "calcdistri": "G" if lesion.calcification else "",
                    "path_severity": int(rng.choice(PATHOLOGY[letter])) if letter in PATHOLOGY else "",
                }
            )
    return rows
