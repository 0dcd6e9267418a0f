"""CheXpert: chest X-rays with 14 findings read from reports.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019,
https://stanfordmlgroup.github.io/competitions/chexpert. The tables hold ``Path``, ``Sex``, ``Age``,
``Frontal/Lateral``, ``AP/PA`` and one column per finding with 1 (present), 0 (absent), -1 (uncertain) or nothing (not
mentioned). Releases differ in the order of the columns, so they are read by name.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, require_one_of

logger = logging.getLogger(__name__)

#: The labelled findings, in the order in which captions name them.
FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
#: The table of each split. The public download has the first two; a test table is used where somebody has put one.
TABLES = {"train": "train.csv", "validation": "valid.csv", "test": "test.csv"}
#: What CheXlocalize calls them; read where the others are not there. Its test table has paths and labels alone.
CHEXLOCALIZE_TABLES = {"validation": "val_labels.csv", "test": "test_labels.csv"}
#: What the caption template may name.
SLOTS = ("findings", "view", "sex", "age")

#: What stands before a finding that the report leaves open, where such a finding is one of its own.
UNCERTAIN = "uncertain "

_UNCERTAIN = {"zero": 0, "one": 1}
#: What a -1 may mean.
UNCERTAINTIES = ("ignore", *_UNCERTAIN, "separate")
_VIEWS = {"AP": "AP", "PA": "PA"}  # 17 rows of the release say LL or RL of a frontal image: no view is kept of them


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    uncertain: str = "ignore",
    frontal_only: bool = True,
) -> list[Item]:
    """List CheXpert's images with captions and labels.

    Images are looked for at ``root/Path``, or without the leading ``CheXpert-v1.0[-small]/`` where ``root`` has no
    such folder; those of ``valid/`` also in ``val/``. A table without the column ``Frontal/Lateral``, as that of the
    published test labels, has the side in the names of its files. The caption names every positive finding in lower
    case, "no finding" among them. A finding that the report does not mention counts as absent, as is usual for this
    set. Rows without a positive finding, and rows for which no template has a slot to fill, are left out, and counted
    in the log.

    Args:
        root: the folder with ``train.csv`` and ``valid.csv``, or CheXlocalize's with ``val_labels.csv`` and
            ``test_labels.csv``.
        split: "train", "validation" or "test"; None for every table that is there.
        prompts: caption templates (slots: ``findings``, ``view``, ``sex``, ``age``) and classes, which are finding
            columns in lower case.
        uncertain: what a -1 means: "ignore" (unknown: NaN in ``label``, absent from ``findings``), "zero", "one", or
            "separate": unknown as with "ignore", and a finding of its own besides, such as "uncertain edema", which
            ``findings`` and the caption name ("edema, uncertain pneumonia") and ``prompts`` may have as a class. A
            row with uncertain findings alone is then an item too.
        frontal_only: leave lateral images out.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id``, ``study_id``, ``split``, ``view`` ("AP",
        "PA", "LATERAL"), and ``sex`` ("F", "M") and ``age`` (years) where the table has them.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    require_one_of("uncertain", uncertain, UNCERTAINTIES)
    if split is not None:
        require_one_of("split", split, TABLES)
    prompts.check_classes(finding_names(uncertain), "finding", "CheXpert")
    prompts.check_slots(SLOTS)
    root = Path(root)
    present = [side for side in TABLES if _table(root, side).is_file()]
    sides = [split] if split else present or ["train"]
    return [
        item for side in sides for item in _read(root, side, prompts, uncertain=uncertain, frontal_only=frontal_only)
    ]


def _table(root: Path, split: str) -> Path:
    """The table of a split, by either of its names."""
    usual, other = root / TABLES[split], root / CHEXLOCALIZE_TABLES.get(split, TABLES[split])
    return other if other.is_file() and not usual.is_file() else usual


def _laterals(frame: pd.DataFrame, path: Path) -> list[bool | None]:
    """True of each lateral image: by the table, or without that column by the file's name, ``view1_lateral.jpg``."""
    sides = {"frontal": False, "lateral": True}
    if "Frontal/Lateral" in frame:
        tables.no_gaps(frame["Frontal/Lateral"], path)
        return tables.codes(frame["Frontal/Lateral"], path, sides)
    named = frame["Path"].str.lower().str.extract(r"_(frontal|lateral)\.[^/]*$", expand=False)
    tables.refuse_rows(named.isna(), path, "whose path says neither frontal nor lateral, and no 'Frontal/Lateral' does")
    return [sides[name] for name in named]


def finding_names(uncertain: str) -> list[str]:
    """The names that a finding of an item can have, for a meaning of -1."""
    known = [name.lower() for name in FINDINGS]
    return known + [UNCERTAIN + name for name in known] if uncertain == "separate" else known


def _read(root: Path, split: str, prompts: PromptSet, *, uncertain: str, frontal_only: bool) -> list[Item]:
    path = _table(root, split)
    asked = {name.removeprefix(UNCERTAIN) for name in prompts.classes}
    needed = [name for name in FINDINGS if name.lower() in asked]
    frame = tables.read_table(
        path, required=["Path", *needed], optional=["Frontal/Lateral", "Sex", "Age", "AP/PA", *FINDINGS]
    )
    tables.no_gaps(frame["Path"], path)
    tables.no_duplicates(frame["Path"], path)
    frame["lateral"] = _laterals(frame, path)
    places, located = _path_parts(frame["Path"], path), _locate(root, frame["Path"])
    _compare_folders(places, located)
    numbers, found = patterns(frame, path, prompts, uncertain)
    details = _details(frame, path)
    listed = ~frame["lateral"].to_numpy(dtype=bool) if frontal_only else np.ones(len(frame), dtype=bool)
    kept = listed & np.array([bool(pattern.text) for pattern in found])[numbers]
    patients = {patient: pseudonym(patient) for patient in {patient for patient, _ in compress(places, kept)}}
    studies = {place: pseudonym("/".join(place)) for place in set(compress(places, kept))}
    total = len(frame)
    del frame  # a tenth of a GB
    written: dict[tuple[int, int], dict[str, Any]] = {}
    items = []
    for number, detail, place, (image, name) in zip(
        numbers[kept].tolist(), compress(details, kept), compress(places, kept), compress(located, kept), strict=True
    ):
        pattern = found[number]
        key = (number, id(detail))
        if key not in written:
            texts = prompts.write({**parts.words_of(detail), "findings": pattern.text})
            written[key] = parts.caption_keys(texts)
        if not written[key]:
            continue
        items.append(
            make_item(
                image,
                name,
                written[key],
                findings=pattern.findings,
                label=pattern.label,
                patient_id=patients[place[0]],
                study_id=studies[place],
                split=split,
                details=detail,
            )
        )
    logger.info(
        "CheXpert %s: %d rows, %d items; left out: %d lateral, %d without a positive finding, %d that nothing captions",
        split,
        total,
        len(items),
        int((~listed).sum()),
        int((listed & ~kept).sum()),
        int(kept.sum()) - len(items),
    )
    return items


@dataclass(frozen=True)
class Pattern:
    """One combination of labels, and what follows from it; all rows that have it share these objects.

    Attributes:
        findings: 1.0 or 0.0 by name.
        label: in the order of the classes.
        text: the positive findings, as a caption names them.
    """

    findings: dict[str, float]
    label: list[float]
    text: str


def patterns(frame: pd.DataFrame, path: Path, prompts: PromptSet, uncertain: str) -> tuple[np.ndarray, list[Pattern]]:
    """The number of each row's combination of labels, and the combinations: a few thousand in 191,010 rows.

    Args:
        frame: with columns of :data:`FINDINGS` as text: 1, 0, -1 (uncertain) or nothing (not mentioned: absent).
        path: the table, for errors.
        prompts: the classes.
        uncertain: as of :func:`datalist`.

    Raises:
        BundleError: a label is another; names it.
    """
    columns = [name for name in FINDINGS if name in frame]
    codes = np.empty((len(frame), len(columns)), dtype=np.int8)
    for place, name in enumerate(columns):
        codes[:, place] = tables.numbers(frame[name], path, allowed=(-1, 0, 1)).fillna(0)
    packed = (codes + 1) @ 3 ** np.arange(len(columns))  # 14 labels of three values as one number
    _, first, numbers = np.unique(packed, return_index=True, return_inverse=True)
    patterns = []
    for row in codes[first].tolist():
        named = {name.lower(): code for name, code in zip(columns, row, strict=True)}
        findings = {
            name: float(_UNCERTAIN.get(uncertain, code) if code == -1 else code)
            for name, code in named.items()
            if code != -1 or uncertain in _UNCERTAIN
        }
        if uncertain == "separate":
            findings |= {UNCERTAIN + name: 1.0 for name, code in named.items() if code == -1}
        label = [findings.get(name, 0.0 if name.startswith(UNCERTAIN) else np.nan) for name in prompts.classes]
        text = describe_findings(name for name, value in findings.items() if value == 1)
        patterns.append(Pattern(findings, label, text))
    return numbers, patterns


def _path_parts(column: pd.Series, path: Path) -> list[tuple[str, str]]:
    """The patient and study folder of each row, the last two but one parts of the path."""
    places = []
    for row, value in zip(column.index, column, strict=True):
        folders = value.rsplit("/", 3)
        if len(folders) < 3:
            raise BundleError(f"{path}, row {row}: column 'Path' holds no '<patient>/<study>/<image>'")
        places.append((sys.intern(folders[-3]), sys.intern(folders[-2])))
    return places


def _locate(root: Path, column: pd.Series) -> list[tuple[str, str]]:
    """Absolute path and name within the set; the leading folder is asked for once, not once per image."""
    folder = str(root.absolute())
    firsts = {value.split("/", 1)[0] for value in column}
    versions = {first + "/" for first in firsts if first.startswith("CheXpert-")}
    absent = {first for first in versions if not (root / first).is_dir()}
    bases = [root, *(root / first for first in versions)]
    renamed = any((base / "val").is_dir() for base in bases) and not any((base / "valid").is_dir() for base in bases)
    located = []
    for value in column:
        first, _, rest = value.partition("/")
        leading = first + "/" in versions
        name = rest if leading else value
        if renamed and name.startswith("valid/"):
            name = f"val/{name.removeprefix('valid/')}"
        located.append(
            (f"{folder}/{first}/{name}" if leading and first + "/" not in absent else f"{folder}/{name}", name)
        )
    return located


def _compare_folders(places: list[tuple[str, str]], located: list[tuple[str, str]]) -> None:
    """Say how many patients of the table have no folder, and how many folders no row; lists one folder in all."""
    listed: dict[str, set[str]] = {}
    for (patient, _), (image, _name) in zip(places, located, strict=True):
        listed.setdefault(image.rsplit("/", 3)[0], set()).add(patient)
    for folder, wanted in listed.items():
        present = (
            {name for name in os.listdir(folder) if name.startswith("patient")} if os.path.isdir(folder) else set()
        )
        if absent := len(wanted - present):
            logger.warning("%d of %d patients of the table have no folder in %s", absent, len(wanted), folder)
        if surplus := len(present - wanted):
            logger.info("%d folders of patients without a row left out", surplus)


def _details(frame: pd.DataFrame, path: Path) -> list[dict[str, Any]]:
    """View, sex and age of each row, without what is unknown; equal ones are one object."""
    blank = pd.Series("", index=frame.index)
    views = ["LATERAL" if lateral else _VIEWS.get(value)
             for lateral, value in zip(frame["lateral"], frame.get("AP/PA", blank), strict=True)]  # fmt: skip
    sexes = tables.codes(frame.get("Sex", blank), path, tables.SEXES)
    ages = tables.ages(frame.get("Age", blank), path)
    rows = list(zip(views, sexes, ages.astype(object).where(ages.notna(), None), strict=True))
    details = {row: parts.known(view=row[0], sex=row[1], age=row[2]) for row in set(rows)}
    return [details[row] for row in rows]
