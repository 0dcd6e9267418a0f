"""RSNA Screening Mammography Breast Cancer Detection 2022: mammograms, with cancer as biopsy found it.

https://www.kaggle.com/competitions/rsna-breast-cancer-detection. ``train.csv`` has a row per image: ``site_id``,
``patient_id``, ``image_id``, ``laterality``, ``view``, ``age``, ``cancer``, ``biopsy``, ``invasive``, ``BIRADS``,
``implant``, ``density``, ``machine_id``, ``difficult_negative_case``. Images lie at
``train_images/<patient_id>/<image_id>.dcm``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import birads
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.datasets.birads import BIRADS_WORDS, DENSITY_WORDS
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

CANCER, NO_CANCER = "cancer", "no cancer"
#: What can be classed, and the words of its classes.
TARGETS: Mapping[str, Mapping[Any, str]] = {
    "cancer": {1: CANCER, 0: NO_CANCER},
    "density": {code: DENSITY_WORDS[code] for code in (1, 2, 3, 4)},
    "birads": {category: BIRADS_WORDS[category] for category in (1, 2, 0)},
}
#: What the caption template may name.
SLOTS = ("side", "view", "age", "density", "density_words", "birads", "birads_words", "cancer")
#: Findings beside the classes, and the columns of 0 and 1 that tell them.
FLAGS = {"invasive cancer": "invasive", "biopsy": "biopsy", "implant": "implant"}
#: Values of ``view``.
VIEWS = ("CC", "MLO", "ML", "LM", "AT", "LMO")

_TABLE = "train.csv"
_DENSITIES = {letter: code for code, letter in enumerate("abcd", start=1)}


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet, target: str = "cancer") -> list[Item]:
    """List the challenge's training images with captions and labels (its test images have no public labels).

    ``BIRADS`` is given for the first site alone, 0 to 2: additional imaging, negative, benign. An empty ``BIRADS`` or
    ``density`` is unknown. Density A to D is written 1 to 4, as in the other breast sets.

    Left out, and counted in the log: images whose target is unknown or none of the classes, images for which no
    template has a slot to fill, and images without a row. Rows without an image stay in the list, with a warning that
    counts them (:func:`cleft_bundle.data.make_splits` leaves them out). A row that repeats an earlier one is passed
    over, and counted.

    Args:
        root: the folder with ``train.csv`` and the images, wherever they lie below it.
        split: None; the challenge names no split of its labelled images.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, named by the words of :data:`TARGETS`.
        target: "cancer", "density" or "birads".

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings`` (the classes, "cancer", and :data:`FLAGS` where known), ``label`` (one-hot, in the order of
        ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's: the table names no study), ``split`` (None),
        ``laterality``, ``view``, and where known ``age`` (years), ``density`` (1-4) and ``birads`` (0-2).

    Raises:
        BundleError: an argument, the table, a column or a value is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': the challenge names no split; expected None")
    birads.check_target(target, TARGETS, prompts, SLOTS)
    root = Path(root)
    frame = _read(root / _TABLE)
    tree = FileTree(root)
    frame["name"] = tree.locate(("train_images/" + frame["patient_id"] + "/" + frame["image_id"] + ".dcm").tolist())
    kept = frame[frame[target].map(TARGETS[target]).isin(list(prompts.classes))]
    parts.report_kept(logger, tree.files, frame["name"], kept["name"])
    found = parts.list_items(tree.root, _rows(kept, target, prompts), prompts)
    logger.info("RSNA breast: %d rows, %d items; left out: %d without a %s among the classes, %d that nothing captions",
                len(frame), len(found), len(frame) - len(kept), target, len(kept) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per image, checked and under our names."""
    required = ["patient_id", "image_id", "laterality", "view", "cancer"]
    frame = tables.read_table(path, required, ["age", "BIRADS", "density", *FLAGS.values()])
    frame = tables.drop_repeated(frame, path)
    for name in required:
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["image_id"], path)
    blank = pd.Series("", index=frame.index)
    checked = {
        "patient_id": frame["patient_id"],
        "image_id": frame["image_id"],
        "laterality": tables.codes(frame["laterality"], path, tables.SIDES),
        "view": tables.codes(frame["view"], path, {view.lower(): view for view in VIEWS}),
        "cancer": tables.numbers(frame["cancer"], path, allowed=(0, 1)),
        "age": tables.ages(frame.get("age", blank), path),
        "birads": tables.numbers(frame.get("BIRADS", blank), path, allowed=(0, 1, 2)),
        "density": pd.Series(tables.codes(frame.get("density", blank), path, _DENSITIES), frame.index, dtype=float),
        **{name: tables.numbers(frame.get(name, blank), path, allowed=(0, 1)) for name in FLAGS.values()},
    }
    read = pd.DataFrame(checked, index=frame.index)
    tables.refuse_rows((read["invasive"] == 1) & (read["cancer"] == 0), path, "with an invasive cancer and no cancer")
    return read


def _rows(frame: pd.DataFrame, target: str, prompts: PromptSet) -> Iterator[parts.Row]:
    for row in frame.to_dict("records"):
        known = parts.known(**{name: row[name] for name in ("laterality", "view", "age", "density", "birads")})
        known |= {name: int(known[name]) for name in ("density", "birads") if name in known}
        flags = parts.known(**{name: row[column] for name, column in FLAGS.items()})
        yield parts.Row(
            row["name"],
            {**birads.words_of(known), "cancer": TARGETS["cancer"][row["cancer"]]},
            {CANCER: row["cancer"]} | birads.one_hot(TARGETS[target][row[target]], prompts) | flags,
            row["patient_id"],
            details=known,
        )
