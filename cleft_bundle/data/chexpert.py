"""CheXpert: chest X-rays with 14 findings read from reports.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019,
https://stanfordmlgroup.github.io/competitions/chexpert. The tables hold ``Path``, ``Sex``, ``Age``,
``Frontal/Lateral``, ``AP/PA`` and one column a finding with 1 (present), 0 (absent), -1 (uncertain) or nothing (not
mentioned). Releases differ in the order of the columns, so they are read by name.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions import PromptSet, describe_findings
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

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
#: What the caption template may name.
SLOTS = ("findings", "view", "sex", "age")

_UNCERTAIN = {"ignore": np.nan, "zero": 0.0, "one": 1.0}
_SEX_WORDS = {"F": "female", "M": "male"}
_VIEWS = {"AP": "AP", "PA": "PA"}  # 17 rows of the release say LL or RL of a frontal image: no view is kept of them


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    uncertain: str = "ignore",
    frontal_only: bool = True,
) -> list[dict[str, Any]]:
    """List CheXpert's images with captions and labels.

    Images are looked for at ``root/Path``, or without the leading ``CheXpert-v1.0[-small]/`` where ``root`` has no
    such folder. The caption names every positive finding in lower case, "no finding" among them. A finding that the
    report does not mention counts as absent, as is usual for this set. Rows without a positive finding, and rows for
    which no template has a slot to fill, are left out, and counted in the log.

    Args:
        root: the folder with ``train.csv`` and ``valid.csv``.
        split: "train", "validation" or "test"; None for every table that is there.
        prompts: caption templates (slots: ``findings``, ``view``, ``sex``, ``age``) and classes, which are finding
            columns in lower case.
        uncertain: what a -1 means: "ignore" (unknown: NaN in ``label``, absent from ``findings``), "zero" or "one".
        frontal_only: leave lateral images out.

    Returns:
        One item an image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are several,
        ``findings``, ``label`` (order of ``prompts.classes``), ``patient_id``, ``study_id``, ``split``, ``view`` ("AP",
        "PA", "LATERAL"), and ``sex`` ("F", "M") and ``age`` (years) where the table has them.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    if uncertain not in _UNCERTAIN:
        raise BundleError(f"uncertain='{uncertain}': expected one of {', '.join(_UNCERTAIN)}")
    if split is not None and split not in TABLES:
        raise BundleError(f"split='{split}': expected one of {', '.join(TABLES)}, or None")
    prompts.check_classes([name.lower() for name in FINDINGS], "finding", "CheXpert")
    prompts.check_slots(SLOTS)
    root = Path(root)
    present = [side for side, table in TABLES.items() if (root / table).is_file()]
    sides = [split] if split else present or ["train"]
    return [
        item
        for side in sides
        for item in _read(root, side, prompts, uncertain=_UNCERTAIN[uncertain], frontal_only=frontal_only)
    ]


def _read(root: Path, split: str, prompts: PromptSet, *, uncertain: float, frontal_only: bool) -> list[dict[str, Any]]:
    path = root / TABLES[split]
    needed = [name for name in FINDINGS if name.lower() in prompts.classes]
    frame = tables.read_table(
        path, required=["Path", "Frontal/Lateral", *needed], optional=["Sex", "Age", "AP/PA", *FINDINGS]
    )
    tables.no_gaps(frame["Path"], path)
    tables.no_gaps(frame["Frontal/Lateral"], path)
    tables.no_duplicates(frame["Path"], path)
    total = len(frame)
    lateral = np.array(
        tables.codes(frame["Frontal/Lateral"], path, {"frontal": False, "lateral": True}), dtype=object
    ).astype(bool)
    if frontal_only:
        frame, lateral = frame[~lateral], lateral[~lateral]
    names = [name for name in FINDINGS if name in frame]
    labels = np.stack([tables.numbers(frame[name], path, allowed=(-1, 0, 1)) for name in names], axis=1)
    labels = np.where(np.isnan(labels), 0.0, np.where(labels == -1, uncertain, labels))
    captioned = (labels == 1).any(axis=1)
    items = _items(root, split, path, frame[captioned], lateral[captioned], labels[captioned], names, prompts)
    logger.info(
        "CheXpert %s: %d rows, %d items; left out: %d lateral, %d without a positive finding, %d that nothing captions",
        split,
        total,
        len(items),
        total - len(frame),
        int((~captioned).sum()),
        int(captioned.sum()) - len(items),
    )
    return items


def _items(
    root: Path,
    split: str,
    path: Path,
    frame: pd.DataFrame,
    lateral: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    prompts: PromptSet,
) -> list[dict[str, Any]]:
    parts = _path_parts(frame["Path"], path)
    patients = {value: pseudonym(value) for value in {patient for patient, _ in parts.values()}}
    studies = {value: pseudonym("/".join(value)) for value in set(parts.values())}
    details = _details(frame, lateral, path)
    lower = [name.lower() for name in names]
    order = [lower.index(name) for name in prompts.classes]
    located = _locate(root, frame["Path"])
    described: dict[tuple[int, ...], str] = {}
    items = []
    for row, (image, name), detail, known in zip(frame.index, located, details, _shared(labels), strict=True):
        positive = tuple(place for place, value in enumerate(known) if value == 1)
        if positive not in described:
            described[positive] = describe_findings(lower[place] for place in positive)
        words = {**detail, "findings": described[positive], "sex": _SEX_WORDS.get(detail.get("sex", ""))}
        study = parts[row]
        texts = prompts.write(words)
        if not texts:
            continue
        items.append(
            {
                "image": image,
                "name": name,
                "caption": texts[0],
                **({"captions": texts} if len(texts) > 1 else {}),
                "findings": {
                    finding: value for finding, value in zip(lower, known, strict=True) if not math.isnan(value)
                },
                "label": [known[place] for place in order],
                "patient_id": patients[study[0]],
                "study_id": studies[study],
                "split": split,
                **detail,
            }
        )
    return items


def _shared(labels: np.ndarray) -> list[list[float]]:
    """Rows of 0, 1 or NaN as lists that share three float objects: millions of them would take a third of a GB."""
    values = np.array([0.0, 1.0, np.nan], dtype=object)
    return values[np.where(np.isnan(labels), 2, labels).astype(int)].tolist()


def _path_parts(column: pd.Series, path: Path) -> dict[int, tuple[str, str]]:
    """From each row to its patient and study folder, the last two but one parts of the path."""
    parts = {}
    for row, value in zip(column.index, column, strict=True):
        folders = value.rsplit("/", 3)
        if len(folders) < 3:
            raise BundleError(f"{path}, row {row}: column 'Path' holds no '<patient>/<study>/<image>'")
        parts[row] = (folders[-3], folders[-2])
    return parts


def _locate(root: Path, column: pd.Series) -> list[tuple[str, str]]:
    """Absolute path and name within the set; the leading folder is asked for once, not once an image."""
    folder = str(root.absolute())
    leading = {value.split("/", 1)[0] for value in column}
    versions = {first + "/" for first in leading if first.startswith("CheXpert-")}
    absent = {first for first in versions if not (root / first).is_dir()}
    located = []
    for value in column:
        first, _, rest = value.partition("/")
        name = rest if first + "/" in versions else value
        located.append((f"{folder}/{name if first + '/' in absent else value}", name))
    return located


def _details(frame: pd.DataFrame, lateral: np.ndarray, path: Path) -> list[dict[str, Any]]:
    """View, sex and age of each row, without what is unknown."""
    blank = pd.Series("", index=frame.index)
    sides = frame.get("AP/PA", blank)
    views = ["LATERAL" if side else _VIEWS.get(value) for side, value in zip(lateral, sides, strict=True)]
    sexes = tables.codes(frame.get("Sex", blank), path, tables.SEXES)
    ages = tables.numbers(frame.get("Age", blank), path).tolist()
    return [
        {
            **({"view": view} if view else {}),
            **({"sex": sex} if sex else {}),
            **({"age": age} if not math.isnan(age) else {}),
        }
        for view, sex, age in zip(views, sexes, ages, strict=True)
    ]
