"""COVID-19 image data collection: chest X-rays of published cases with clinical notes.

Cohen et al., "COVID-19 Image Data Collection: Prospective Predictions Are the Future", MELBA 2020,
https://github.com/ieee8023/covid-chestxray-dataset. ``metadata.csv`` has a row per image: ``patientid``, ``offset``,
``sex``, ``age``, ``finding``, ``view``, ``modality``, ``folder``, ``filename``, ``license``, ``clinical_notes``, and
more. Hospitals differ by diagnosis, so that a network may learn these in place of the disease.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError
from cleft_bundle.names import plain_name
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: Findings that a class may be even where a part of the table has none of them.
FINDINGS = (
    *(NO_FINDING, "pneumonia", "viral", "covid-19", "sars", "mers-cov", "influenza", "varicella", "herpes"),
    *("bacterial", "streptococcus", "klebsiella", "legionella", "mycoplasma", "e.coli", "nocardia"),
    *("staphylococcus", "chlamydophila", "fungal", "pneumocystis", "aspergillosis", "lipoid", "aspiration"),
    *("tuberculosis", "h1n1", "mrsa"),
)
#: What the caption templates may name; the last are the notes of the case.
SLOTS = ("findings", "view", "sex", "age", "notes")

_TABLE = "metadata.csv"
_FOLDER = "images"
_VIEWS = {"pa": "PA", "ap": "AP", "ap supine": "AP", "ap erect": "AP", "l": "LATERAL", "lateral": "LATERAL"}
_UNKNOWN = ("", "todo", "unknown")
_XRAY = ("x-ray", "xray", "cr", "dx")


def datalist(
    root: str | Path, split: str | None = None, *, prompts: PromptSet, frontal_only: bool = True
) -> list[Item]:
    """List the collection's X-rays with captions and labels.

    Findings are the parts of ``finding``: "Pneumonia/Viral/COVID-19" is pneumonia, viral and covid-19. "todo",
    "Unknown" and nothing are unknown labels, and of "Pneumonia" alone the kinds of pneumonia are unknown. The clinical
    notes are captions as they are, in one line.

    Left out, and counted in the log: images of another modality, images of another view or none, with ``frontal_only``
    lateral ones, and images that nothing captions. Rows without an image stay in the list, with a warning that counts
    them (:func:`cleft_bundle.data.make_splits` leaves them out). A row that repeats an earlier one is passed over, and
    counted.

    Args:
        root: the folder with ``metadata.csv`` and ``images/``.
        split: None; the collection names no split.
        prompts: caption templates (slots: :data:`SLOTS`) and classes: :data:`FINDINGS`, or others of the table.
        frontal_only: keep PA and AP images alone.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings``, ``label`` (order of ``prompts.classes``; NaN where unknown), ``patient_id``, ``study_id``,
        ``split`` (None), ``view`` ("PA", "AP", "LATERAL"), and ``sex`` ("F", "M") and ``age`` (years) where known.

    Raises:
        BundleError: an argument, the table, a column or a value is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': the collection names no split; expected None")
    prompts.check_slots(SLOTS)
    root = Path(root)
    path = root / _TABLE
    frame = _read(path)
    named = {value: _findings(value) for value in frame["finding"].unique()}
    known = list(dict.fromkeys([*FINDINGS, *(name for names in named.values() for name in names)]))
    prompts.check_classes(known, "finding", "the collection")
    other = ~frame["modality"].str.lower().isin(_XRAY)
    odd = ~other & frame["view"].isna()
    lateral = ~other & (frame["view"] == "LATERAL") & frontal_only
    kept = frame[~(other | odd | lateral)]
    files = parts.image_files(root, list(dict.fromkeys([_FOLDER, *frame["folder"].unique()])))
    parts.report_kept(logger, files, frame["filename"], kept["filename"])
    found = parts.list_items(str(root.absolute()), _rows(kept, files, named, list(prompts.classes)), prompts)
    logger.info("COVID-19 image data: %d rows, %d items, %d of unknown labels; left out: %d of another modality, %d of "
                "another view or none, %d lateral, %d that nothing captions", len(frame), len(found),
                sum(not item["findings"] for item in found), int(other.sum()), int(odd.sum()), int(lateral.sum()),
                len(kept) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> pd.DataFrame:
    """One row per image, checked and with what follows."""
    required = ["patientid", "finding", "view", "modality", "filename"]
    optional = ["offset", "sex", "age", "folder", "clinical_notes", "other_notes"]
    frame = tables.drop_repeated(tables.read_table(path, required, optional), path)
    for name in ("patientid", "filename", "modality"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["filename"], path)
    blank = pd.Series("", index=frame.index)
    for name in optional:
        frame[name] = frame.get(name, blank)
    return frame.assign(
        folder=frame["folder"].where(frame["folder"] != "", _FOLDER),
        view=frame["view"].str.lower().map(_VIEWS),
        sex=pd.Series(tables.codes(frame["sex"], path, tables.SEXES), index=frame.index, dtype=object),
        age=tables.ages(frame["age"], path),
    )


def _findings(value: str) -> list[str]:
    """The parts of a finding in lower case, each once; none where it is unknown."""
    names = dict.fromkeys(plain_name(part) for part in value.split("/"))
    return [name for name in names if name not in _UNKNOWN]


def _finer(value: str, values: Iterable[str]) -> set[str]:
    """The parts of other findings of the table that are kinds of this one, of which it says nothing."""
    own = _findings(value)
    others = [_findings(other) for other in values]
    return {name for other in others if own and other[: len(own)] == own for name in other[len(own) :]} - {*own}


def _rows(
    frame: pd.DataFrame, files: dict[str, str], named: dict[str, list[str]], classes: list[str]
) -> Iterator[parts.Row]:
    unknown = {value: _finer(value, named) for value in named}
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        positive = named[row["finding"]]
        details = parts.known(view=row["view"], sex=row["sex"], age=row["age"])
        study = f"{row['patientid']}/{row['offset']}" if row["offset"] else None
        yield parts.Row(
            files.get(row["filename"], f"{row['folder']}/{row['filename']}"),
            {
                **parts.words_of(details),
                "findings": describe_findings(positive),
                "notes": " ".join(row["clinical_notes"].split()),
            },
            _flags(positive, [name for name in classes if name not in unknown[row["finding"]]]),
            row["patientid"],
            study,
            details=details,
        )


def _flags(positive: list[str], told: list[str]) -> dict[str, float]:
    """Findings by name: of the classes that are told of, absent unless positive; empty where nothing is known."""
    return dict.fromkeys(told, 0.0) | dict.fromkeys(positive, 1.0) if positive else {}
