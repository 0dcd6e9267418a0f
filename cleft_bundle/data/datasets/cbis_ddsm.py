"""CBIS-DDSM: scanned film mammograms with masses and calcifications, and what pathology found.

Lee et al., "A curated mammography data set for use in computer-aided detection and diagnosis research", Scientific Data
2017, https://www.cancerimagingarchive.net/collection/cbis-ddsm. Four tables, of masses and of calcifications, for
training and test, have a row per abnormality. A film with both kinds stands in both, as two files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import birads
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.datasets.birads import BIRADS_WORDS, DENSITY_WORDS
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, require_one_of

logger = logging.getLogger(__name__)

#: The tables, and the side of the official split that each is for.
TABLES = {f"{kind}_case_description_{split}_set.csv": split for split in ("train", "test") for kind in ("mass", "calc")}
#: What can be classed, and the words of its classes.
TARGETS: Mapping[str, Mapping[Any, str]] = {
    "pathology": {"benign": "benign", "malignant": "malignant"},
    "density": {code: DENSITY_WORDS[code] for code in (1, 2, 3, 4)},
    "birads": {category: words for category, words in BIRADS_WORDS.items() if category < 6},
}
#: What the caption template may name.
SLOTS = (
    *("side", "view", "density", "density_words", "birads", "birads_words", "pathology"),
    *("mass_shape", "mass_margin", *birads.CALCIFICATION),
)

# Each column by the names that it has in one table or another; the last one is that of a short table of films.
_NEEDED = {
    "patient_id": ("patient_id",),
    "laterality": ("left or right breast", "laterality"),
    "view": ("image view", "view"),
    "density": ("breast_density", "breast density"),
    "birads": ("assessment",),
    "pathology": ("pathology",),
    "path": ("image file path", "file"),
}
_DESCRIBED = {
    "mass_shape": "mass shape",
    "mass_margin": "mass margins",
    "calcification_type": "calc type",
    "calcification_distribution": "calc distribution",
}
_VIEWS = {"cc": "CC", "mlo": "MLO"}
_MALIGNANT = {"benign": False, "benign_without_callback": False, "malignant": True}
_FILM = ["patient_id", "laterality", "view"]
_SUFFIXES = {".dcm", ".dicom", ".jpg", ".jpeg", ".png", ""}


def datalist(
    root: str | Path,
    split: str | None = None,
    *,
    prompts: PromptSet,
    target: str = "pathology",
    table: str | Path | None = None,
) -> list[Item]:
    """List CBIS-DDSM's films with captions and labels.

    A film is a patient's breast in one view. All its abnormalities, of both kinds of tables, are gathered: it is
    malignant if any of them is, its assessment is the most severe one
    (:data:`cleft_bundle.data.datasets.birads.SEVERITY`), its density the highest. The words for a mass and for
    calcifications are those of the most severe abnormality that has any. A film with a file in both kinds of tables is
    one item, the first file that is there. Where the two are on different sides of the official split, it is an item of
    each side; some patients are, so that :func:`cleft_bundle.data.make_splits` wants ``shared_patients="drop"``, which
    leaves the training files out.

    A film's file is the one that the table names, else the only image in the folder of its series, else the only one in
    the folder of its first part (``Mass-Training_P_00001_LEFT_CC``): downloads call it ``1-1.dcm`` where the tables say
    ``000000.dcm``.

    Left out, and counted in the log: films of other splits, films whose target is unknown or none of the classes, and
    films for which no template has a slot to fill. Rows without an image stay in the list, with a warning that counts
    them (:func:`cleft_bundle.data.make_splits` leaves them out). Images without a row are counted; masks
    and cut-outs of the abnormalities are among them.

    Args:
        root: the folder with the tables, and the images wherever they lie below it. A table that is not there is
            passed over with a warning, as long as one is.
        split: "train" or "test" of the official split; None for every film.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, named by the words of :data:`TARGETS`.
        target: "pathology", "density" or "birads".
        table: a table to read in place of the four, below ``root`` or absolute, whose films have no split. Its columns
            are named as in those, or ``laterality``, ``view`` and ``file`` (path below ``root``, or the bare name).

    Returns:
        One item per film: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are several,
        ``findings`` (the classes, and with 1.0 whatever an abnormality is described by, such as
        ``mass shape: irregular``), ``label`` (one-hot, in the order of ``prompts.classes``), ``patient_id``,
        ``study_id`` (the patient's: the tables name no study), ``split`` ("train", "test" or None), ``laterality``,
        ``view`` ("CC", "MLO"), and where known ``density`` (1-4), ``birads`` (0-5) and ``pathology``.

    Raises:
        BundleError: an argument, a table, a column or a value is not as described; names it.
    """
    sides = sorted(set(TABLES.values()))
    if split is not None:
        require_one_of("split", split, sides)
    if split and table:
        raise BundleError(f"split='{split}': a table of your own names no split; expected None")
    birads.check_target(target, TARGETS, prompts, SLOTS)
    root = Path(root)
    frame = _read_all(root, table)
    tree = FileTree(root)
    files = _locate(tree, frame["path"].tolist())
    frame["name"] = frame["path"].map(files)
    films = _films(frame, set(tree.files))
    listed = films if split is None else films[films["split"] == split]
    kept = listed[listed[target].map(TARGETS[target]).isin(list(prompts.classes))]
    parts.report_kept(logger, tree.files, frame["name"], kept["name"])
    found = _items(tree.root, kept, target, prompts)
    logger.info("CBIS-DDSM%s: %d abnormalities, %d items; left out: %d films of other splits, %d without a %s among "
                "the classes, %d that nothing captions",
                f" {split}" if split else "", len(frame), len(found), len(films) - len(listed),
                len(listed) - len(kept), target, len(kept) - len(found))  # fmt: skip
    return found


def _read_all(root: Path, table: str | Path | None) -> pd.DataFrame:
    """One row per abnormality, of all tables."""
    if table is not None:
        return _read(root / table, None)
    present = {name: side for name, side in TABLES.items() if (root / name).is_file()}
    if not present:
        raise BundleError(f"{root}: found none of the tables {', '.join(TABLES)}")
    if absent := [name for name in TABLES if name not in present]:
        logger.warning("CBIS-DDSM: without %s", ", ".join(absent))
    return pd.concat([_read(root / name, side) for name, side in present.items()], ignore_index=True)


def _read(path: Path, split: str | None) -> pd.DataFrame:
    """One row per abnormality, checked and under our names."""
    columns = [name for names in _NEEDED.values() for name in names]
    frame = tables.read_table(path, ["patient_id"], [*columns, "abnormality id", *_DESCRIBED.values()])
    if repeated := int(frame.duplicated().sum()):
        logger.warning("%s: %d rows repeat an earlier one, the first is row %d",
                       path.name, repeated, frame.duplicated().idxmax())  # fmt: skip
    column = {ours: _column(frame, path, names) for ours, names in _NEEDED.items()}
    for name in ("patient_id", "laterality", "view", "path"):
        tables.no_gaps(column[name], path)
    blank = pd.Series("", index=frame.index)
    density = tables.numbers(column["density"], path, allowed=range(5))
    return pd.DataFrame(
        {
            "patient_id": column["patient_id"],
            "laterality": tables.codes(column["laterality"], path, tables.SIDES),
            "view": tables.codes(column["view"], path, _VIEWS),
            "density": density.where(density > 0),
            "birads": tables.numbers(column["birads"], path, allowed=range(6)),
            "malignant": tables.codes(column["pathology"], path, _MALIGNANT),
            **{ours: [_words(value) for value in frame.get(name, blank)] for ours, name in _DESCRIBED.items()},
            "path": ["".join(value.split()) for value in column["path"]],  # quoted paths end with a line break
            "split": split,
        },
        index=frame.index,
    )


def _column(frame: pd.DataFrame, path: Path, names: Sequence[str]) -> pd.Series:
    """The column that has one of the names."""
    present = [name for name in names if name in frame]
    if not present:
        tables.read_table(path, names[:1])  # raises, and names the columns that are there
    if len(present) > 1:
        raise BundleError(f"{path}: the columns {' and '.join(present)} mean the same, expected one of them")
    return frame[present[0]]


def _words(value: str) -> str:
    """Words of a value such as ``PLEOMORPHIC-FINE_LINEAR_BRANCHING``; empty for ``N/A``."""
    words = [part.replace("_", " ").lower().strip() for part in value.split("-")]
    return " and ".join(word for word in words if word not in ("", "n/a"))


def _locate(tree: FileTree, paths: Sequence[str]) -> dict[str, str]:
    """From each path of a table to the file that it means, or to what it should be called."""
    inside: dict[str, list[str]] = {}
    for file in tree.files:
        place = PurePosixPath(file)
        if place.suffix.lower() in _SUFFIXES:
            for folder in place.parts[:-1]:
                inside.setdefault(folder, []).append(file)
    found = dict(zip(paths, tree.locate(paths), strict=True))
    for path, name in found.items():
        folders = PurePosixPath(path).parts[:-1]
        if name not in tree.files and folders:
            only = [inside[folder] for folder in (folders[-1], folders[0]) if len(inside.get(folder, ())) == 1]
            found[path] = only[0][0] if only else name
    return found


def _films(frame: pd.DataFrame, files: set[str]) -> pd.DataFrame:
    """One row per film and side of the split, with what its abnormalities come to."""
    frame = frame.assign(there=frame["name"].isin(files), severity=frame["birads"].map(birads.SEVERITY).fillna(-1))
    films = []
    for _, abnormalities in frame.groupby(_FILM, sort=False):
        rows = abnormalities.sort_values(["malignant", "severity"], ascending=False, kind="stable")
        known = rows["malignant"].dropna()
        film = {
            **rows.iloc[0][_FILM].to_dict(),
            "density": rows["density"].max(),
            "birads": rows["birads"].iloc[int(rows["severity"].argmax())],
            "pathology": None if known.empty else "malignant" if known.any() else "benign",
            "described": {name: 1.0 for row in rows.to_dict("records") for name in birads.described(row)},
        }
        for slots in (("mass_shape", "mass_margin"), birads.CALCIFICATION):
            worded = rows.loc[(rows[list(slots)] != "").any(axis=1), list(slots)]
            film |= dict.fromkeys(slots, "") if worded.empty else worded.iloc[0].to_dict()
        for split, copies in abnormalities.groupby("split", sort=False, dropna=False):
            first = copies.sort_values("there", ascending=False, kind="stable").iloc[0]
            films.append(film | {"split": split if isinstance(split, str) else None, "name": first["name"]})
    return pd.DataFrame(films)


def _items(root: str, films: pd.DataFrame, target: str, prompts: PromptSet) -> list[Item]:
    patients = {value: pseudonym(value) for value in films["patient_id"].unique()}
    write = parts.caption_writer(prompts)
    found = []
    for row in films.astype(object).where(films.notna(), None).to_dict("records"):
        known = parts.known(**{name: row[name] for name in (*_FILM[1:], "density", "birads", "pathology", *_DESCRIBED)})
        known |= {name: int(known[name]) for name in ("density", "birads") if name in known}
        texts = write(birads.words_of(known))
        if not texts:
            continue
        findings = birads.one_hot(TARGETS[target][known[target]], prompts) | row["described"]
        found.append(
            make_item(
                f"{root}/{row['name']}",
                row["name"],
                texts,
                findings=findings,
                label=parts.labels(findings, prompts),
                patient_id=patients[row["patient_id"]],
                split=row["split"],
                details={name: value for name, value in known.items() if name not in _DESCRIBED},
            )
        )
    return found
