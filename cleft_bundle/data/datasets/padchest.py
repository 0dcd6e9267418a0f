"""PadChest: chest X-rays with findings and Spanish reports.

Bustos et al., "PadChest: A large chest x-ray image dataset with multi-label annotated reports", Medical Image Analysis
2020, https://bimcv.cipf.es/bimcv-projects/padchest. ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` (packed or
not) has a row per image: ``ImageID``, ``ImageDir``, ``StudyDate_DICOM``, ``StudyID``, ``PatientID``, ``PatientBirth``,
``PatientSex_DICOM``, ``Projection``, ``Report`` (stemmed), ``Labels`` (a list as Python writes it), and more. Images
are PNG files of 16 bits, in ``<ImageDir>/`` or together.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError
from cleft_bundle.names import plain_name
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: Frequent findings, which a class may be even where a part of the table has none of them.
FINDINGS = (
    *(NO_FINDING, "copd signs", "cardiomegaly", "aortic elongation", "pleural effusion", "scoliosis", "pneumonia"),
    *("interstitial pattern", "chronic changes", "infiltrates", "costophrenic angle blunting", "air trapping"),
    *("alveolar pattern", "nsg tube", "kyphosis", "laminar atelectasis", "vertebral degenerative changes"),
    *("vascular hilar enlargement", "nodule", "fibrotic band", "apical pleural thickening", "pacemaker"),
    *("calcified granuloma", "callus rib fracture", "atelectasis", "sternotomy", "volume loss", "bronchiectasis"),
    *("aortic atheromatosis", "consolidation", "increased density", "heart insufficiency", "hemidiaphragm elevation"),
    *("endotracheal tube", "hiatal hernia", "pseudonodule", "emphysema", "hilar enlargement", "pulmonary edema"),
    *("pulmonary fibrosis", "hilar congestion", "pleural thickening", "pulmonary mass", "mass", "rib fracture"),
    *("pneumothorax", "tuberculosis", "lung metastasis", "adenopathy", "fracture"),
)
#: Labels that say something of the report, and name no finding.
NO_FINDINGS = frozenset({"unchanged", "suboptimal study", "exclude"})
#: What the caption templates may name; the last is the report, in Spanish and stemmed.
SLOTS = ("findings", "view", "sex", "age", "report")

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_PATTERN = "PADCHEST*.csv*"
_VIEWS = {"pa": "PA", "ap": "AP", "ap_horizontal": "AP", "ap supine": "AP", "l": "LATERAL",
          "costal": None, "exclude": None, "unk": None}  # fmt: skip
_NOTHING = ("nan", "none")  # as the table writes what is not known
_EXCLUDE = "exclude"


def datalist(
    root: str | Path, split: str | None = None, *, prompts: PromptSet, frontal_only: bool = True
) -> list[Item]:
    """List PadChest's images with captions and labels.

    Findings are the table's labels in lower case, "normal" as "no finding". Labels of :data:`NO_FINDINGS` are none;
    where a row has no other, its labels are unknown, as are those of a row whose ``Labels`` are empty or "nan".
    "normal" beside a finding gives way to it. The age is that of the year of the study.

    Left out, and counted in the log: rows whose label or projection is "exclude", oblique rib and unknown projections,
    with ``frontal_only`` lateral images, and images that nothing captions. Rows without an image stay in the list, with
    a warning that counts them (:func:`cleft_bundle.data.make_splits` leaves them out).

    Args:
        root: the folder with the table and the images, wherever they lie below it.
        split: None; PadChest names no split.
        prompts: caption templates (slots: :data:`SLOTS`) and classes: :data:`FINDINGS`, or other labels of the table.
        frontal_only: keep PA and AP images alone.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``; NaN where the labels are unknown), ``patient_id``,
        ``study_id``, ``split`` (None), ``view`` ("PA", "AP", "LATERAL"), and ``sex`` ("F", "M") and ``age`` (years)
        where known.

    Raises:
        BundleError: an argument, the table, a column or a value is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': PadChest names no split; expected None")
    prompts.check_slots(SLOTS)
    root = Path(root)
    plain = root / _TABLE
    path = plain if plain.is_file() else tables.find_table(root, _PATTERN)
    frame = _read(path)
    labels = _labels(frame["Labels"], path)
    known = list(dict.fromkeys([*FINDINGS, *(name for names in labels.values() for name in names or ())]))
    prompts.check_classes(known, "label", "PadChest")
    excluded = frame["Labels"].map({value: _EXCLUDE in (names or ()) for value, names in labels.items()})
    odd = ~excluded & frame["view"].isna()
    lateral = ~excluded & (frame["view"] == "LATERAL") & frontal_only
    kept = frame[~(excluded | odd | lateral)]
    tree = FileTree(root)
    paths = (frame["ImageDir"] + "/" + frame["ImageID"]).str.removeprefix("/")
    names = dict(zip(frame["ImageID"], tree.locate(paths.tolist()), strict=True))
    parts.report_kept(logger, tree.files, names.values(), kept["ImageID"].map(names))
    found = parts.list_items(tree.root, _rows(kept, labels, names, list(prompts.classes)), prompts)
    logger.info("PadChest: %d rows, %d items, %d of unknown labels; left out: %d to exclude, %d of another or unknown "
                "projection, %d lateral, %d that nothing captions", len(frame), len(found),
                sum(not item["findings"] for item in found), int(excluded.sum()), int(odd.sum()), int(lateral.sum()),
                len(kept) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per image, checked: ImageID, ImageDir, StudyID, PatientID, Labels, Report, view, sex, age."""
    ids = ["ImageID", "StudyID", "PatientID"]
    optional = ["ImageDir", "StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM", "Report"]
    frame = tables.drop_repeated(tables.read_table(path, [*ids, "Projection", "Labels"], optional), path)
    for name in ids:
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["ImageID"], path)
    blank = pd.Series("", index=frame.index)
    for name in ("Projection", "Labels", *optional):
        column = frame.get(name, blank)
        frame[name] = column.where(~column.str.lower().isin(_NOTHING), "")
    year = tables.numbers(frame["StudyDate_DICOM"].str[:4], path)
    age = year - tables.numbers(frame["PatientBirth"], path)
    return frame.assign(
        view=pd.Series(tables.codes(frame["Projection"], path, _VIEWS), index=frame.index, dtype=object),
        sex=pd.Series(tables.codes(frame["PatientSex_DICOM"], path, tables.SEXES), index=frame.index, dtype=object),
        age=age.where((age >= 0) & (age <= tables.OLDEST)),
    )


def _labels(column: pd.Series, path: Path) -> dict[str, list[str] | None]:
    """From each distinct value of a column to its labels in lower case; None where nothing is said."""
    found: dict[str, list[str] | None] = {"": None}
    for text in column.unique():
        if text:
            try:
                names = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                names = None
            good = isinstance(names, list) and all(isinstance(name, str) for name in names)
            found[text] = list(dict.fromkeys(plain_name(name) for name in names if name.strip())) if good else None
    bad = (column != "") & column.map({text: names is None for text, names in found.items()})
    tables.refuse_rows(bad, path, "whose Labels are no list of names such as ['pneumonia', 'scoliosis']")
    renamed = {"normal": NO_FINDING}
    return {text: names and [renamed.get(name, name) for name in names] for text, names in found.items()}


def _rows(
    frame: pd.DataFrame, labels: Mapping[str, list[str] | None], names: Mapping[str, str], classes: list[str]
) -> Iterator[parts.Row]:
    kinds = {text: _kind(said or [], classes) for text, said in labels.items()}
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        findings, text = kinds[row["Labels"]]
        details: dict[str, Any] = parts.known(view=row["view"], sex=row["sex"], age=row["age"])
        report = " ".join(row["Report"].split()).replace(" .", ".").strip(" .")
        yield parts.Row(
            names[row["ImageID"]],
            {**parts.words_of(details), "findings": text, "report": f"{report}." if report else ""},
            dict(findings),
            row["PatientID"],
            row["StudyID"],
            details=details,
        )


def _kind(said: list[str], classes: list[str]) -> tuple[dict[str, float], str]:
    """Findings of a list of labels, and what a caption says of them; empty where they are unknown."""
    positive = [name for name in said if name not in NO_FINDINGS]
    if len(positive) > 1:
        positive = [name for name in positive if name != NO_FINDING]
    if not positive:
        return {}, ""
    return dict.fromkeys(classes, 0.0) | dict.fromkeys(positive, 1.0), describe_findings(positive)
