"""MIMIC-CXR: chest X-rays with reports, and 14 findings that two programs read from these.

Johnson et al., "MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text reports",
Scientific Data 2019, https://physionet.org/content/mimic-cxr and https://physionet.org/content/mimic-cxr-jpg. The
tables are read packed (``.csv.gz``) or not, and of any version: ``mimic-cxr-2.0.0-metadata`` (a row per image) or
``cxr-record-list`` of the DICOM files, ``-split``, ``-chexpert`` and ``-negbio``. Images and reports lie at
``files/p10/p10000032/s50414267/<dicom_id>.jpg`` (or ``.dcm``) and ``files/p10/p10000032/s50414267.txt``.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.captions.reports import Report, WordlessError, read_text, sentences
from cleft_bundle.data.datasets import chexpert
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item
from cleft_bundle.data.subsets import digest
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.progress import LONG, bar

logger = logging.getLogger(__name__)

#: The labelled findings; those of CheXpert.
FINDINGS = chexpert.FINDINGS
#: Programs that read the labels from the reports.
LABELLERS = ("chexpert", "negbio")
#: What the caption templates may name.
SLOTS = ("findings", "findings_text", "impression", "view")

_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_VIEWS = {"pa": "PA", "ap": "AP", "lateral": "LATERAL", "ll": "LATERAL", "postero-anterior": "PA",
          "antero-posterior": "AP", "left lateral": "LATERAL"}  # fmt: skip
_CODE = "ViewCodeSequence_CodeMeaning"
_SUFFIXES = (".jpg", ".dcm", ".png")
_REPORTS = (".", "mimic-cxr-reports")


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    labeller: str = "chexpert",
    uncertain: str = "ignore",
    frontal_only: bool = True,
    sentence_captions: int = 3,
) -> list[Item]:
    """List MIMIC-CXR's images with captions from their reports and labels of a study.

    All images of a study have its report and its labels. A finding that the labels leave empty counts as absent, as is
    usual for this set; a study without a row in the table of labels has unknown labels. The view is that of
    ``ViewPosition``, or of its code where that is empty. Reports are looked for beside the images and in
    ``mimic-cxr-reports/``; an image without a report has the caption of its labels.

    Left out, and counted in the log: images of other splits; with ``frontal_only`` lateral images, and those of another
    view or none; images that nothing captions. Rows without an image stay in the list, with a warning that counts them
    (:func:`cleft_bundle.data.make_splits` leaves them out).

    Args:
        root: the folder with the tables and ``files/``.
        split: "train", "validation" or "test" of the official split; None for every image.
        prompts: caption templates (slots: ``findings``, those of the labels; ``findings_text`` and ``impression``,
            sections of the report; ``view``) and classes, which are finding columns in lower case.
        labeller: "chexpert" or "negbio": whose labels.
        uncertain: what a -1 means, as of :func:`cleft_bundle.data.datasets.chexpert.datalist`.
        frontal_only: keep PA and AP images alone; needs the table of metadata.
        sentence_captions: sentences of findings and impression, at most, that are captions by themselves; which ones
            is drawn by a hash of the study.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``; NaN where a study has no labels), ``patient_id``,
        ``study_id``, ``split`` (None without the table of splits) and where known ``view`` ("PA", "AP", "LATERAL").

    Raises:
        BundleError: an argument, a table, a column or a value is not as described, or an image has no split where the
            table of splits is there; names it.
    """
    require_one_of("labeller", labeller, LABELLERS)
    require_one_of("uncertain", uncertain, chexpert.UNCERTAINTIES)
    if split is not None:
        require_one_of("split", split, _SPLITS.values())
    if sentence_captions < 0:
        raise BundleError(f"sentence_captions: expected 0 or more, got {sentence_captions}")
    prompts.check_classes(chexpert.finding_names(uncertain), "finding", "MIMIC-CXR")
    prompts.check_slots(SLOTS)
    root = Path(root)
    frame = _read_images(root, frontal_only=frontal_only)
    listed = frame if split is None else frame[frame["split"] == split]
    kept = listed[listed["view"].isin(["PA", "AP"])] if frontal_only else listed
    studies = _read_labels(root, labeller, prompts, uncertain)
    reports = _read_reports(root, kept)
    names = dict(zip(kept["dicom_id"], _locate(root, kept), strict=True))
    rows = _rows(kept, names, studies, reports, sentence_captions)
    found = parts.list_items(str(root.absolute()), rows, prompts)
    views = Counter(listed["view"].fillna("another or none")) if frontal_only else Counter()
    logger.info("MIMIC-CXR%s: %d images, %d items, %d without a report, %d of studies without labels; left out: %d of "
                "other splits, %d lateral, %d of another view or none, %d that nothing captions",
                f" {split}" if split else "", len(frame), len(found),
                int((~kept["study_id"].isin(list(reports))).sum()), int((~kept["study_id"].isin(list(studies))).sum()),
                len(frame) - len(listed), views["LATERAL"], views["another or none"],
                len(kept) - len(found))  # fmt: skip
    return found


def _find(root: Path, pattern: str) -> Path | None:
    """A table of any version, packed or not; an unpacked one first."""
    found = [path for end in ("csv", "csv.gz") for path in sorted(root.glob(f"{pattern}.{end}"))]
    return found[-1] if found and found[-1].suffix == ".csv" else found[0] if found else None


def _read_images(root: Path, *, frontal_only: bool) -> pd.DataFrame:
    """One row per image: dicom_id, subject_id, study_id, path, view, split."""
    metadata, records = _find(root, "mimic-cxr-*-metadata"), _find(root, "cxr-record-list")
    path = metadata or records
    if path is None:
        raise BundleError(f"{root}: found no table mimic-cxr-*-metadata.csv.gz and no cxr-record-list.csv.gz")
    if frontal_only and metadata is None:
        raise BundleError(f"{root}: frontal_only needs the table mimic-cxr-*-metadata.csv.gz, which is not there")
    ids = ["dicom_id", "subject_id", "study_id"]
    frame = tables.drop_repeated(tables.read_table(path, ids, ["ViewPosition", _CODE, "path"]), path)
    for name in ids:
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["dicom_id"], path)
    blank = pd.Series("", index=frame.index)
    positions, codes = frame.get("ViewPosition", blank), frame.get(_CODE, blank)
    stated = positions.where(positions != "", codes)
    folders = "files/p" + frame["subject_id"].str[:2] + "/p" + frame["subject_id"] + "/s" + frame["study_id"] + "/"
    frame["path"] = frame.get("path", folders + frame["dicom_id"] + (_SUFFIXES[0] if metadata else _SUFFIXES[1]))
    frame["view"] = stated.str.lower().map(_VIEWS)
    frame["split"] = _splits(root, frame, path)
    return frame


def _splits(root: Path, frame: pd.DataFrame, images: Path) -> pd.Series:
    """The official split of each image, or None for all."""
    path = _find(root, "mimic-cxr-*-split")
    if path is None:
        return pd.Series([None] * len(frame), index=frame.index, dtype=object)
    table = tables.drop_repeated(tables.read_table(path, ["dicom_id", "split"]), path)
    for name in table:
        tables.no_gaps(table[name], path)
    tables.no_duplicates(table["dicom_id"], path)
    sides = dict(zip(table["dicom_id"], tables.codes(table["split"], path, _SPLITS), strict=True))
    splits = frame["dicom_id"].map(sides)
    tables.refuse_rows(splits.isna(), images, f"with an image that {path.name} does not have")
    return splits


def _read_labels(root: Path, labeller: str, prompts: PromptSet, uncertain: str) -> dict[str, chexpert.Pattern]:
    """From each study to its labels; empty without the table."""
    path = _find(root, f"mimic-cxr-*-{labeller}")
    if path is None:
        logger.warning("MIMIC-CXR: without mimic-cxr-*-%s.csv.gz, no label is known", labeller)
        return {}
    asked = {name.removeprefix(chexpert.UNCERTAIN) for name in prompts.classes}
    needed = [name for name in FINDINGS if name.lower() in asked]
    frame = tables.drop_repeated(tables.read_table(path, ["study_id", *needed], FINDINGS), path)
    tables.no_gaps(frame["study_id"], path)
    tables.no_duplicates(frame["study_id"], path, "expected one row per study")
    numbers, patterns = chexpert.patterns(frame, path, prompts, uncertain)
    return {study: patterns[number] for study, number in zip(frame["study_id"], numbers, strict=True)}


def _read_reports(root: Path, frame: pd.DataFrame) -> dict[str, Report]:
    """From each study to its report, where there is one; a report without words counts as none."""
    folders = {study: os.path.dirname(path) for study, path in zip(frame["study_id"], frame["path"], strict=True)}
    found, silent = {}, 0
    for study, folder in bar(folders.items(), "reading reports", "report", hidden=len(folders) < LONG, leave=False):
        path = next((path for base in _REPORTS if (path := root / base / f"{folder}.txt").is_file()), None)
        try:
            if path:
                found[study] = read_text(path)
        except WordlessError:
            silent += 1
    if silent:
        logger.warning("MIMIC-CXR: %d reports hold no words", silent)
    return found


def _locate(root: Path, frame: pd.DataFrame) -> list[str]:
    """Path of each image below the root, with the suffix of the file that is there, or else of the table."""
    names, absent = [], []
    suffixes: tuple[str, ...] = _SUFFIXES
    for path in frame["path"]:
        stem = os.path.splitext(path)[0]
        suffix = next((end for end in suffixes if os.path.isfile(f"{root}/{stem}{end}")), None)
        if suffix is None:
            absent.append(path)
        elif suffix != suffixes[0]:
            suffixes = (suffix, *(end for end in _SUFFIXES if end != suffix))  # the others are most likely alike
        names.append(path if suffix is None else stem + suffix)
    if absent:
        logger.warning("%d of %d images of the table are not there: %s",
                       len(absent), len(frame), parts.some(absent))  # fmt: skip
    return names


def _rows(
    frame: pd.DataFrame,
    names: Mapping[str, str],
    studies: Mapping[str, chexpert.Pattern],
    reports: Mapping[str, Report],
    count: int,
) -> Iterator[parts.Row]:
    drawn = {study: _draw(study, report, count) for study, report in reports.items()}
    nothing = Report({})
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        study = row["study_id"]
        pattern, sections = studies.get(study), reports.get(study, nothing).sections
        words = {
            "findings": pattern.text if pattern else "",
            "findings_text": " ".join(sections.get("findings", "").split()),
            "impression": " ".join(sections.get("impression", "").split()),
            "view": (row["view"] or "").lower(),
        }
        yield parts.Row(
            names[row["dicom_id"]],
            words,
            pattern.findings if pattern else {},
            row["subject_id"],
            f"{row['subject_id']}/{study}",
            row["split"],
            parts.known(view=row["view"]),
            drawn.get(study, ()),
            pattern.label if pattern else None,
        )


def _draw(study: str, report: Report, count: int) -> list[str]:
    """Some sentences of a report, in its order."""
    spoken = [text for name in ("findings", "impression") for text in sentences(report.sections.get(name, ""))]
    spoken = list(dict.fromkeys(spoken))
    chosen = sorted(spoken, key=lambda text: digest(0, f"{study} {text}"))[:count]
    return [text for text in spoken if text in chosen]
