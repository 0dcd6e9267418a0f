"""EMBED: mammograms with density and BI-RADS assessments.

Jeong et al., "The EMory BrEast imaging Dataset (EMBED)", Radiology: Artificial Intelligence 2023,
https://github.com/Emory-HITI/EMBED_Open_Data. One table has a row an image, the other a row a finding; they meet on
the exam (``acc_anon``). A finding with side L or R holds for the images of that side, one with side B or none for both.

EMBED's licence forbids redistribution of its data and release of models trained on it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions import PromptSet
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

#: Words of the density codes; 5 is given to male breasts.
DENSITY_WORDS = {
    1: "almost entirely fat",
    2: "scattered fibroglandular densities",
    3: "heterogeneously dense",
    4: "extremely dense",
    5: "normal male",
}
#: BI-RADS category and words of the assessment letters, from the least to the most severe: that is the order of
#: suspicion, in which an incomplete assessment (A, category 0) stands above probably benign and below suspicious.
ASSESSMENTS = {
    "N": (1, "negative"),
    "B": (2, "benign"),
    "P": (3, "probably benign"),
    "A": (0, "additional imaging"),
    "S": (4, "suspicious"),
    "M": (5, "highly suggestive of malignancy"),
    "K": (6, "known biopsy-proven malignancy"),
}
#: Words of the BI-RADS categories.
BIRADS_WORDS = dict(sorted(ASSESSMENTS.values()))
#: What can be classed, and the words of its classes.
TARGETS = {"density": DENSITY_WORDS, "birads": BIRADS_WORDS}
#: What the caption template may name.
SLOTS = ("side", "view", "density", "density_words", "birads", "birads_words", "age")

_SEVERITY = {letter: rank for rank, letter in enumerate(ASSESSMENTS)}
_CATEGORY = {rank: ASSESSMENTS[letter][0] for letter, rank in _SEVERITY.items()}
# X marks an exam after a procedure, which has no BI-RADS category.
_LETTERS: dict[str, int | None] = {**{letter.lower(): rank for letter, rank in _SEVERITY.items()}, "x": None}
_FINDING_SIDES = {"l": "L", "r": "R", "b": "LR"}
_SIDE_WORDS = {"L": "left", "R": "right"}


def datalist(
    root: str | Path,
    target: str = "density",
    *,
    prompts: PromptSet,
    image_types: Sequence[str] = ("2D",),
    metadata_table: str = "tables/EMBED_OpenData_metadata*.csv",
    clinical_table: str = "tables/EMBED_OpenData_clinical*.csv",
) -> list[dict[str, Any]]:
    """List EMBED's images with captions and labels.

    The assessment of an image is the most severe one of its side in the exam (see :data:`ASSESSMENTS` for the order),
    its density that of the exam (the highest, where findings of one exam differ). Left out, and counted in the log:
    images of other types, images of no single side, images whose target is unknown or none of the classes, and images
    for which no template has a slot to fill.

    Args:
        root: the folder with ``tables/``; paths of images are taken relative to it, without as many leading folders
            as it takes to find the file (the release's paths begin at the mount point of its makers).
        target: "density" or "birads".
        prompts: caption templates (slots: ``side``, ``view``, ``density``, ``density_words``, ``birads``,
            ``birads_words``, ``age``) and classes, named by the words of :data:`DENSITY_WORDS` or
            :data:`BIRADS_WORDS`.
        image_types: values of ``FinalImageType`` to keep: "2D", "cview", "3D".
        metadata_table: pattern, below ``root``, of the table with one row an image.
        clinical_table: pattern, below ``root``, of the table with one row a finding.

    Returns:
        One item an image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are several,
        ``findings``, ``label`` (one-hot, in the order of ``prompts.classes``), ``patient_id``, ``study_id``, ``split``
        (None: EMBED defines none), ``view``, ``laterality``, and ``density`` (1-5), ``birads`` (0-6) and ``age``
        (years) where known.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    if target not in TARGETS:
        raise BundleError(f"target='{target}': expected one of {', '.join(TARGETS)}")
    prompts.check_classes(list(TARGETS[target].values()), "value", target)
    prompts.check_slots(SLOTS)
    root = Path(root)
    images = _read_images(tables.find_table(root, metadata_table), image_types)
    exams, sides = _read_exams(tables.find_table(root, clinical_table))
    joined = images.join(exams, on="acc_anon").join(sides, on=["acc_anon", "laterality"])
    kept = joined[joined[target].map(TARGETS[target]).isin(list(prompts.classes))]
    items = _items(root, kept, target, prompts)
    logger.info("EMBED: %d items; left out: %d images without a %s among the classes, %d that nothing captions",
                len(items), len(joined) - len(kept), target, len(kept) - len(items))  # fmt: skip
    return items


def _read_images(path: Path, image_types: Sequence[str]) -> pd.DataFrame:
    """One row an image of one side: anon_dicom_path, empi_anon, acc_anon, laterality, view."""
    required = ["anon_dicom_path", "empi_anon", "acc_anon", "FinalImageType", "ImageLateralityFinal", "ViewPosition"]
    frame = tables.read_table(path, required)
    for name in ("anon_dicom_path", "empi_anon", "acc_anon"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["anon_dicom_path"], path)
    frame["laterality"] = tables.codes(frame["ImageLateralityFinal"], path, {"l": "L", "r": "R", "b": None})
    frame["view"] = frame["ViewPosition"].str.upper()
    of_type = frame["FinalImageType"].isin(list(image_types))
    of_one_side = frame["laterality"].notna()
    logger.info("EMBED: %d image rows; left out: %d of other types than %s, %d of no single side",
                len(frame), int((~of_type).sum()), ", ".join(image_types),
                int((of_type & ~of_one_side).sum()))  # fmt: skip
    return frame.loc[of_type & of_one_side, ["anon_dicom_path", "empi_anon", "acc_anon", "laterality", "view"]]


def _read_exams(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Density and age by exam; BI-RADS category by exam and side."""
    frame = tables.read_table(path, ["acc_anon", "side", "asses", "tissueden"], optional=["age_at_study"])
    tables.no_gaps(frame["acc_anon"], path)
    frame["density"] = tables.numbers(frame["tissueden"], path, allowed=DENSITY_WORDS)
    frame["age"] = tables.numbers(frame["age_at_study"], path) if "age_at_study" in frame else float("nan")
    frame["severity"] = pd.Series(tables.codes(frame["asses"], path, _LETTERS), index=frame.index, dtype=float)
    frame["laterality"] = [list(sides or "LR") for sides in tables.codes(frame["side"], path, _FINDING_SIDES)]
    exams = frame.groupby("acc_anon")[["density", "age"]]
    differing = int((exams.nunique()["density"] > 1).sum())
    if differing:
        logger.warning("EMBED: %d exams have findings of different density; the highest is taken", differing)
    severity = frame.explode("laterality").groupby(["acc_anon", "laterality"])["severity"].max()
    return exams.max(), severity.map(_CATEGORY).rename("birads").to_frame()


def _items(root: Path, frame: pd.DataFrame, target: str, prompts: PromptSet) -> list[dict[str, Any]]:
    patients = {value: pseudonym(value) for value in frame["empi_anon"].unique()}
    studies = {value: pseudonym(value) for value in frame["acc_anon"].unique()}
    finder = _Finder(root)
    items = []
    for row in frame.to_dict("records"):
        image, name = finder.find(row["anon_dicom_path"])
        known = {key: row[key] for key in ("density", "birads", "age") if not math.isnan(row[key])}
        words = {
            **known,
            "side": _SIDE_WORDS[row["laterality"]],
            "view": row["view"].lower(),
            "density_words": DENSITY_WORDS.get(known.get("density", 0)),
            "birads_words": BIRADS_WORDS.get(known.get("birads", -1)),
        }
        texts = prompts.write(words)
        if not texts:
            continue
        findings = {label: float(label == TARGETS[target][row[target]]) for label in prompts.classes}
        items.append(
            {
                "image": image,
                "name": name,
                "caption": texts[0],
                **({"captions": texts} if len(texts) > 1 else {}),
                "findings": findings,
                "label": list(findings.values()),
                "patient_id": patients[row["empi_anon"]],
                "study_id": studies[row["acc_anon"]],
                "split": None,
                "laterality": row["laterality"],
                **({"view": row["view"]} if row["view"] else {}),
                **{key: value if key == "age" else int(value) for key, value in known.items()},
            }
        )
    return items


class _Finder:
    """Finds images below a root whose table gives them with leading folders of another machine."""

    def __init__(self, root: Path) -> None:
        self.root = str(root.absolute())
        self.surplus = 0  # leading folders that the last file found had too many

    def find(self, path: str) -> tuple[str, str]:
        """Absolute path and name within the set; a file that is nowhere is named as its neighbours are."""
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        usual = min(self.surplus, len(parts) - 1)
        for surplus in [usual, *range(len(parts))]:
            name = "/".join(parts[surplus:])
            if os.path.isfile(f"{self.root}/{name}"):
                self.surplus = surplus
                return f"{self.root}/{name}", name
        name = "/".join(parts[usual:])
        return f"{self.root}/{name}", name
