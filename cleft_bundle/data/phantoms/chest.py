"""Chest phantoms: DX files below a table with CheXpert's columns (Irvin et al., AAAI 2019).

Seven findings are drawn, none to three an image; No Finding stands where nothing is, and the remaining columns stay
empty.
"""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cleft_bundle.data.datasets.chexpert import FINDINGS
from cleft_bundle.data.phantoms import dicom, folder
from cleft_bundle.data.phantoms.boxes import LOCATION_COLUMNS, LOCATIONS
from cleft_bundle.data.phantoms.chest_scene import DRAWN, Anatomy, ChestScene
from cleft_bundle.data.phantoms.shapes import Pose, expose

VERSION = 1
UNCERTAIN = ("Edema", "Consolidation", "Atelectasis")
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)


def chest(root: str, patients: int = 500, seed: int = 0) -> str:
    """Draw a set of chest phantoms, unless it is there already.

    The set's folder holds `train.csv`, `valid.csv` (every fifth patient; no patient is in both),
    `CheXpert-phantom/{train,valid}/patientNNNNN/studyN/view1_frontal.dcm` and `locations.csv` with the pixel boxes of
    the drawn findings (columns Path, finding, x, y, width, height), see :func:`add_boxes`. 500 patients make about
    1,000 images.

    Args:
        root: folder below which the set's folder is made.
        patients: number of phantom patients, at least 5.
        seed: each patient depends on (seed, number of the patient) alone.

    Returns:
        Path of the set's folder, whose name carries kind, version, number and seed.

    Raises:
        BundleError: a number is out of range, or the folder cannot be written.
    """
    return folder.build("chest", VERSION, root, patients, seed, lambda target: _fill(target, patients, seed))


def _fill(target: Path, patients: int, seed: int) -> None:
    rows: dict[str, list[dict[str, object]]] = {"train": [], "valid": []}
    boxes: list[tuple[object, ...]] = []
    drawn = folder.draw_patients(partial(_patient, target, seed), patients, "chest")
    for index, studies in enumerate(drawn):
        for row, found in studies:
            rows[_split(index)].append(row)
            boxes.extend((row["Path"], name, *place) for name, place in found)
    for split, table in rows.items():
        with (target / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(table)
    with (target / LOCATIONS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([LOCATION_COLUMNS, *boxes])


Study = tuple[dict[str, object], list[tuple[str, tuple[int, int, int, int]]]]


def _split(index: int) -> str:
    """Every fifth patient is for validation."""
    return "valid" if index % 5 == 4 else "train"


def _patient(target: Path, seed: int, index: int) -> list[Study]:
    """Draw and write all studies of one phantom patient; give their table rows and boxes."""
    split, number = _split(index), index + 1
    rng = np.random.default_rng([seed, number])
    anatomy = Anatomy.draw(rng)
    sex, age = str(rng.choice(["Male", "Female"])), int(rng.integers(18, 91))
    studies: list[Study] = []
    findings: dict[str, float] = {}
    for study in range(1, 1 + int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))):
        if study == 1 or rng.random() < 0.7:
            findings = _findings(rng, uncertain=split == "train")
        view = str(rng.choice(["AP", "PA"]))
        path = Path("CheXpert-phantom", split, f"patient{number:05d}", f"study{study}", "view1_frontal.dcm")
        pose = Pose(
            height=int(rng.integers(256, 321)),
            width=int(rng.integers(256, 321)),
            shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
            scale=rng.uniform(0.97, 1.04) * (1.02 if view == "AP" else 1.0),
            angle=rng.uniform(-3, 3),
        )
        scene = ChestScene(rng, anatomy, pose, findings)
        header = dicom.Header(
            "chest", number, study, 1, seed, sex=sex[0], age=age, date=f"2000{study:02d}01", view=view
        )
        dicom.write(target / path, expose(scene.density, rng.uniform(0.48, 0.62)), header, rng)
        row = {"Path": path.as_posix(), "Sex": sex, "Age": age, "Frontal/Lateral": "Frontal", "AP/PA": view}
        studies.append((row | _labels(findings, rng, gaps=split == "train"), scene.boxes))
    return studies


def _findings(rng: np.random.Generator, uncertain: bool) -> dict[str, float]:
    """Draw 0 to 3 findings with their strength; an uncertain one is drawn at half strength."""
    count = rng.choice(4, p=[0.25, 0.45, 0.2, 0.1])
    names = rng.choice(DRAWN, count, replace=False)
    return {str(name): 0.5 if uncertain and name in UNCERTAIN and rng.random() < 0.06 else 1.0 for name in names}


def _labels(findings: Mapping[str, float], rng: np.random.Generator, gaps: bool) -> dict[str, object]:
    """CheXpert's columns: 1.0, 0.0, -1.0 for uncertain, and empty where a report would not mention the finding."""
    labels: dict[str, object] = {}
    for name in DRAWN:
        if name in findings:
            labels[name] = 1.0 if findings[name] == 1.0 else -1.0
        else:
            labels[name] = "" if gaps and rng.random() < 0.1 else 0.0
    labels["No Finding"] = 0.0 if findings else 1.0
    return labels
