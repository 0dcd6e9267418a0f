"""EMBED: mammograms with density and BI-RADS assessments.

Jeong et al., "The EMory BrEast imaging Dataset (EMBED)", Radiology: Artificial Intelligence 2023,
https://github.com/Emory-HITI/EMBED_Open_Data. One table has a row per image, the other a row per finding; they meet on
the exam (``acc_anon``). A finding with side L or R holds for the images of that side, one with side B or none for both.

EMBED's licence forbids redistribution of its data and release of models trained on it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import birads, embed_codes
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.datasets.birads import BIRADS_WORDS, DENSITY_WORDS
from cleft_bundle.data.dicom.makers import maker
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, require_one_of, require_some_of
from cleft_bundle.names import plain_name

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: BI-RADS category of the assessment letters; X is an exam without an assessment.
ASSESSMENTS = {"n": 1, "b": 2, "p": 3, "a": 0, "s": 4, "m": 5, "k": 6, "x": None}
#: Values of ``FinalImageType``; "cview" is computed from a tomosynthesis.
IMAGE_TYPES = ("2D", "cview", "3D")
#: What can be classed, and the words of its classes.
TARGETS = {"density": DENSITY_WORDS, "birads": BIRADS_WORDS}
#: What the caption template may name.
SLOTS = (
    *("side", "view", "density", "density_words", "birads", "birads_words"),
    *("age", "race", "ethnicity", "reason", *birads.MASS, *birads.CALCIFICATION),
)

_LEGEND = "AWS_Open_Data_Clinical_Legend.csv"
_FINDING_SIDES = {"l": "L", "r": "R", "b": "LR"}
_RACE = ("RACE_DESC", "ETHNICITY_DESC")  # the full clinical table gives the race in the latter
_NOT_SAID = re.compile(
    r"\b(unknown|unavailable|unreported|not (recorded|reported|available|specified)|declined?|declines|refused)\b"
    r"|^(other|none|n/?a)$"
)
_PATHOLOGY = range(7)  # invasive cancer, non-invasive, high-risk, borderline, benign, negative, no breast cancer
_MALE = 5  # the density of male breasts
_SPOKEN = (*birads.MASS, *birads.CALCIFICATION)
_KIND = (
    *("laterality", "view", "density", "birads", "race", "ethnicity", "reason", "manufacturer", "path_severity"),
    *("described", *_SPOKEN),
)


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    target: str = "density",
    image_types: str | Sequence[str] = IMAGE_TYPES[:1],
    spot_views: bool = False,
    unknown_codes: str = "error",
    metadata_table: str = "tables/EMBED_OpenData_metadata*.csv",
    clinical_table: str = "tables/EMBED_OpenData_clinical*.csv",
) -> list[Item]:
    """List EMBED's images with captions and labels.

    The assessment of an image is the most severe one of its side in the exam
    (:data:`cleft_bundle.data.datasets.birads.SEVERITY` has the order), its density that of the exam (the highest, where
    findings of one exam differ). All findings of its side are gathered in ``findings``. The caption takes the words for
    a mass from the most severe of them that describes one, so that shape and margin belong together, and those for
    calcifications likewise. Codes become words by the legend beside the clinical table; without it, captions leave
    these words out.

    Left out, and counted in the log: images of other types, images of no single side, spot and magnification views
    (where the metadata table has ``spot_mag``), images whose target is unknown or none of the classes, images for
    which no template has a slot to fill, and images without a row. Rows without an image stay in the list, with a
    warning that counts them (:func:`cleft_bundle.data.make_splits` leaves them out).

    Args:
        root: the folder with ``tables/`` and the images; those are found wherever they lie below it, by the trailing
            parts of their paths (the table's paths begin at the mount point of its makers).
        split: None; EMBED names no split.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, named by the words of
            :data:`~cleft_bundle.data.datasets.birads.DENSITY_WORDS` or
            :data:`~cleft_bundle.data.datasets.birads.BIRADS_WORDS`.
        target: "density" or "birads".
        image_types: values of ``FinalImageType`` to keep, at least one of :data:`IMAGE_TYPES`.
        spot_views: keep spot and magnification views too.
        unknown_codes: "error", or "skip" to pass over codes of masses and calcifications that the legend does not have.
        metadata_table: pattern, below ``root``, of the table with one row per image. Where the full table and a reduced
            one are there, the full one is read.
        clinical_table: pattern, below ``root``, of the table with one row per finding, likewise.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings`` (the classes, and with 1.0 whatever a finding of the side describes, such as
        ``mass shape: irregular``), ``label`` (one-hot, in the order of ``prompts.classes``), ``patient_id``,
        ``study_id``, ``split`` (None), ``laterality``, and where known ``view``, ``density`` (1-5), ``birads`` (0-6),
        ``age`` (years), ``sex`` ("M" for the density of a male breast), ``race``, ``ethnicity``, ``reason``
        ("screening", "diagnostic"), ``manufacturer`` and ``path_severity`` (0 invasive cancer to 5 negative, 6 no
        breast cancer; the lowest of the side).

    Raises:
        BundleError: an argument, a table, a column or a value is not as described, or no exam of one table is in the
            other; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': EMBED names no split; expected None")
    require_one_of("unknown_codes", unknown_codes, embed_codes.UNKNOWN)
    kept_types = require_some_of("image_types", image_types, IMAGE_TYPES)
    if not kept_types:
        raise BundleError(f"image_types: expected one or more of {', '.join(IMAGE_TYPES)}, got none")
    birads.check_target(target, TARGETS, prompts, SLOTS)
    root = Path(root)
    listed = _read_images(_table(root, metadata_table), kept_types, spot_views=spot_views)
    images = listed[listed["kept"]]
    path = _table(root, clinical_table)
    exams, sides = _read_findings(path, unknown_codes)
    strange = ~images["acc_anon"].isin(exams.index)
    if len(images) and strange.all():
        raise BundleError(f"{path}: column 'acc_anon' shares no exam with the {len(images)} images of the other table")
    joined = images.join(exams, on="acc_anon").join(sides, on=["acc_anon", "laterality"])
    kept = joined[joined[target].map(TARGETS[target]).isin(list(prompts.classes))]
    tree = FileTree(root)
    names = dict(zip(listed["path"], tree.locate(listed["path"].tolist()), strict=True))
    parts.report_kept(logger, tree.files, names.values(), kept["path"].map(names))
    items = _items(tree.root, names, kept, target, prompts)
    logger.info("EMBED: %d items; left out: %d images without a %s among the classes (%d of them of exams without a "
                "row), %d that nothing captions; %d exams without an image",
                len(items), len(joined) - len(kept), target, int(strange.sum()), len(kept) - len(items),
                int((~exams.index.isin(images["acc_anon"])).sum()))  # fmt: skip
    return items


def _table(root: Path, pattern: str) -> Path:
    """The table of a pattern; that of the plain name where there are others of the pattern too."""
    plain = root / pattern.replace("*", "")
    return plain if plain.is_file() else tables.find_table(root, pattern)


def _read_images(path: Path, image_types: Sequence[str], *, spot_views: bool) -> pd.DataFrame:
    """One row per image: path, empi_anon, acc_anon, laterality, view, reason, manufacturer, kept."""
    required = ["anon_dicom_path", "empi_anon", "acc_anon", "FinalImageType", "ImageLateralityFinal", "ViewPosition"]
    frame = tables.read_table(path, required, ["StudyDescription", "Manufacturer", "spot_mag"])
    for name in ("anon_dicom_path", "empi_anon", "acc_anon"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["anon_dicom_path"], path)
    blank = pd.Series("", index=frame.index)
    spot = tables.numbers(frame.get("spot_mag", blank), path, allowed=(0, 1)) == 1
    frame["laterality"] = tables.codes(frame["ImageLateralityFinal"], path, {"l": "L", "r": "R", "b": None})
    frame["view"] = _each(frame["ViewPosition"], str.upper)
    frame["reason"] = _each(frame.get("StudyDescription", blank), _reason)
    frame["manufacturer"] = frame.get("Manufacturer", blank).map(maker)
    of_type = frame["FinalImageType"].isin(image_types)
    of_one_side = frame["laterality"].notna()
    full = ~spot | spot_views
    logger.info("EMBED: %d image rows; left out: %d of other types than %s, %d of no single side, "
                "%d spot or magnification views",
                len(frame), int((~of_type).sum()), ", ".join(image_types), int((of_type & ~of_one_side).sum()),
                int((of_type & of_one_side & ~full).sum()))  # fmt: skip
    frame["kept"] = of_type & of_one_side & full
    frame = frame.rename(columns={"anon_dicom_path": "path"})
    return frame[["path", "empi_anon", "acc_anon", "laterality", "view", "reason", "manufacturer", "kept"]]


def _reason(description: str) -> str:
    """Why an exam was made, from its description."""
    lower = description.lower()
    return "screening" if "screen" in lower else "diagnostic" if "diag" in lower else ""


def _read_findings(path: Path, unknown_codes: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What holds for an exam (density, age, race, ethnicity), and what for one of its sides.

    The sides have ``birads``, ``path_severity``, the slots of mass and calcifications, and ``described``, the names of
    all that its findings describe.
    """
    optional = ["age_at_study", *_RACE, "ETHNIC_GROUP_DESC", "path_severity", "bside", *embed_codes.SLOTS]
    frame = tables.read_table(path, ["acc_anon", "side", "asses", "tissueden"], optional)
    tables.no_gaps(frame["acc_anon"], path)
    blank = pd.Series("", index=frame.index)
    frame["density"] = tables.numbers(frame["tissueden"], path, allowed=DENSITY_WORDS)
    frame["age"] = tables.ages(frame.get("age_at_study", blank), path)
    frame["race"] = _each(next((frame[name] for name in _RACE if name in frame), blank), _said)
    frame["ethnicity"] = _each(frame.get("ETHNIC_GROUP_DESC", blank), _said)
    frame["birads"] = pd.Series(tables.codes(frame["asses"], path, ASSESSMENTS), index=frame.index, dtype=float)
    frame["path_severity"] = tables.numbers(frame.get("path_severity", blank), path, allowed=_PATHOLOGY)
    frame["laterality"] = [sides or "LR" for sides in tables.codes(frame["side"], path, _FINDING_SIDES)]
    of_pathology = tables.codes(frame.get("bside", blank), path, _FINDING_SIDES)
    frame["of_pathology"] = [own or side for own, side in zip(of_pathology, frame["laterality"], strict=True)]
    legend = embed_codes.read_legend(path.parent / _LEGEND)
    words = embed_codes.translate(frame, path, legend, unknown_codes)
    frame = pd.concat([frame, words], axis=1)
    grouped = frame.groupby("acc_anon")
    differing = int((grouped["density"].max() > grouped["density"].min()).sum())
    if differing:
        logger.warning("EMBED: %d exams have findings of different density; the highest is taken", differing)
    exams = pd.concat([grouped[["density", "age"]].max(), grouped[["race", "ethnicity"]].first()], axis=1)
    pathology = _by_side(frame, "of_pathology")["path_severity"].groupby(level=[0, 1]).min()
    return exams, _sides(_by_side(frame, "laterality")).join(pathology, how="outer")


def _said(text: str) -> str | None:
    """Words in lower case; None for nothing, and for words that say that it is not known."""
    words = plain_name(text)
    return words if words and not _NOT_SAID.search(words) else None


def _each(column: pd.Series, change: Callable[[str], T]) -> list[T]:
    """Change each text of a column; equal ones once."""
    changed = {value: change(value) for value in column.unique()}
    return [changed[value] for value in column]


def _by_side(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Findings indexed by exam and side; those of both sides stand twice."""
    sides = frame.assign(laterality=frame[column].map(list)).explode("laterality")
    return sides.set_index(["acc_anon", "laterality"])


def _sides(findings: pd.DataFrame) -> pd.DataFrame:
    """What the findings of each side come to."""
    ordered = findings.sort_values("birads", key=lambda column: -column.map(birads.SEVERITY).fillna(-1), kind="stable")
    words = []
    for slots in (birads.MASS, birads.CALCIFICATION):
        worded = ordered.loc[(ordered[list(slots)] != "").any(axis=1), list(slots)]
        words.append(worded[~worded.index.duplicated()])
    gathered: dict[tuple[str, str], dict[str, None]] = {}
    worded = ordered.loc[(ordered[list(_SPOKEN)] != "").any(axis=1), list(_SPOKEN)]
    for place, row in zip(worded.index, worded.to_dict("records"), strict=True):
        gathered.setdefault(place, {}).update(dict.fromkeys(birads.described(row)))
    names = pd.Series(
        [tuple(found) for found in gathered.values()],
        index=pd.MultiIndex.from_tuples(list(gathered), names=findings.index.names) if gathered else findings.index[:0],
        dtype=object,
        name="described",
    )
    category = birads.most_severe(findings["birads"]).rename("birads")
    return pd.concat([category.to_frame(), *words, names.to_frame()], axis=1)


def _items(root: str, names: dict[str, str], frame: pd.DataFrame, target: str, prompts: PromptSet) -> list[Item]:
    patients = {value: pseudonym(value) for value in frame["empi_anon"].unique()}
    studies = {value: pseudonym(value) for value in frame["acc_anon"].unique()}
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns}
    kinds: dict[tuple, _Kind] = {}
    captions: dict[tuple[int, int], dict[str, Any]] = {}
    items = []
    for path, patient, exam, age, *values in zip(
        *(columns[name] for name in ("path", "empi_anon", "acc_anon", "age", *_KIND)), strict=True
    ):
        key = tuple(values)
        if key not in kinds:
            kinds[key] = _kind(dict(zip(_KIND, values, strict=True)), target, prompts)
        kind = kinds[key]
        years = -1 if age is None else int(age)
        if (id(kind), years) not in captions:
            captions[id(kind), years] = parts.caption_keys(prompts.write(kind.words | parts.words_of({"age": age})))
        texts = captions[id(kind), years]
        if not texts:
            continue
        items.append(
            make_item(
                f"{root}/{names[path]}",
                names[path],
                texts,
                findings=kind.findings,
                label=kind.label,
                patient_id=patients[patient],
                study_id=studies[exam],
                details=kind.details if age is None else {**kind.details, "age": age},
            )
        )
    return items


@dataclass(frozen=True)
class _Kind:
    """What follows from all that is known of an image but its age; images that agree in it share these objects."""

    details: dict[str, Any]
    words: dict[str, Any]
    findings: dict[str, float]
    label: list[float]


def _kind(known: dict[str, Any], target: str, prompts: PromptSet) -> _Kind:
    described = known.pop("described") or ()
    known = parts.known(**known)
    known |= {name: int(known[name]) for name in ("density", "birads", "path_severity") if name in known}
    details = {name: value for name, value in known.items() if name not in _SPOKEN}
    if details.get("density") == _MALE:
        details["sex"] = "M"
    findings = birads.one_hot(TARGETS[target][known[target]], prompts) | dict.fromkeys(described, 1.0)
    return _Kind(details, birads.words_of(known), findings, parts.labels(findings, prompts))
