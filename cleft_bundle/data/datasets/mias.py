"""MIAS: scanned film mammograms, MLO, with density and circles around abnormalities.

Suckling et al., "The Mammographic Image Analysis Society digital mammogram database", Excerpta Medica 1994,
http://peipa.essex.ac.uk/info/mias.html. ``Info.txt`` has a line per abnormality, or one for a film without any:
reference number, tissue (F, G, D), class (CALC, CIRC, SPIC, MISC, ARCH, ASYM, NORM), severity (B, M), and x, y and
radius of a circle in pixels of the 1024 x 1024 films, counted from the lower left corner.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.datasets import birads
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.images.file_trees import FileTree
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

#: Words of the three kinds of tissue; they are no BI-RADS densities, of which there are four.
TISSUES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
#: Words of the classes of abnormality; NORM is none of them.
ABNORMALITIES = {
    "CALC": "calcification",
    "CIRC": "well-defined circumscribed mass",
    "SPIC": "spiculated mass",
    "MISC": "ill-defined mass",
    "ARCH": "architectural distortion",
    "ASYM": "asymmetry",
}
NORMAL = "normal"
#: Severities from the least to the most severe.
SEVERITIES = {"B": "benign", "M": "malignant"}
#: What can be classed, and the words of its classes.
TARGETS: Mapping[str, Mapping[Any, str]] = {
    "density": {words: words for words in TISSUES.values()},
    "abnormality": {False: NORMAL, True: "abnormal"},
    "severity": {NORMAL: NORMAL, **{words: words for words in SEVERITIES.values()}},
}
#: What the caption template may name.
SLOTS = ("side", "view", "tissue", "findings", "pathology")
#: Rows and columns of a film; y counts from its lower edge.
SIZE = 1024

_TABLES = ("Info.txt", "info.txt", "INFO.TXT", "Info.csv", "data.csv")
_SUFFIXES = (".pgm", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_REFERENCE = re.compile(r"mdb(\d{3})[a-z]*", re.IGNORECASE)


@dataclass
class _Film:
    """What the lines of a film say together."""

    tissue: str
    findings: dict[str, None] = field(default_factory=dict)
    severities: set[str] = field(default_factory=set)
    boxes: list[tuple[str, list[float]]] = field(default_factory=list)
    unread: int = 0


def datalist(root: str | Path, split: str | None = None, *, prompts: PromptSet, target: str = "density") -> list[Item]:
    """List MIAS's films with captions and labels.

    Odd numbers are right and even ones left breasts, and two that follow on each other, such as mdb001 and mdb002, are
    one patient's. A film is as severe as its most severe abnormality. A circle becomes the box around it, from the
    upper left corner and cut at the film's edges. Abnormalities without a circle (those of "NOTE 3" are spread over the
    film) are findings without a box, and counted.

    Left out, and counted in the log: films whose target is none of the classes, films for which no template has a slot
    to fill, and images without a line. Lines without an image stay in the list, with a warning that counts them
    (:func:`cleft_bundle.data.make_splits` leaves them out). A line that repeats an earlier one counts once.

    Args:
        root: the folder with ``Info.txt`` and the films (``mdb001.pgm``, or PNG, JPEG, TIFF), wherever they lie.
        split: None; MIAS names no split.
        prompts: caption templates (slots: :data:`SLOTS`) and classes, named by the words of :data:`TARGETS`.
        target: "density" (of three), "abnormality" (normal or not) or "severity" (normal, benign, malignant).

    Returns:
        One item per film: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where several are,
        ``findings`` (the classes, and 1.0 or 0.0 for each of :data:`ABNORMALITIES`), ``label`` (one-hot, in the order
        of ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's), ``split`` (None), ``laterality``,
        ``view`` ("MLO"), where known ``pathology`` ("benign", "malignant"), and ``boxes`` with ``box_findings``, each
        [x, y, width, height] in pixels of a film of 1024 x 1024 from its upper left corner.

    Raises:
        BundleError: an argument or a line of the table is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': MIAS names no split; expected None")
    birads.check_target(target, TARGETS, prompts, SLOTS)
    root = Path(root)
    path = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    films = _read(path)
    tree = FileTree(root)
    names = _locate(tree, films)
    rows = list(_rows(films, names, target, prompts))
    kept = [row for row in rows if any(row.findings[name] for name in prompts.classes)]
    parts.report_kept(logger, tree.files, names.values(), [row.name for row in kept])
    found = parts.list_items(tree.root, kept, prompts)
    logger.info("MIAS: %d films, %d items; %d abnormalities without a circle; left out: %d without a %s among the "
                "classes, %d that nothing captions", len(films), len(found),
                sum(film.unread for film in films.values()), len(rows) - len(kept), target,
                len(kept) - len(found))  # fmt: skip
    return found


def _read(path: Path) -> dict[str, _Film]:
    """The films by reference number, in lower case; headings and notes are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BundleError(f"{path}: there is no such table") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: expected UTF-8 text, found another encoding at byte {error.start}") from error
    films: dict[str, _Film] = {}
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        fields = re.split(r"[\s,;]+", line.strip(" \t,;"))
        if _is_record(fields) and tuple(fields) not in seen:
            _add(films, fields, f"{path}, row {number}")
        seen.add(tuple(fields))
    if not films:
        raise BundleError(f"{path}: the table is empty, expected lines such as 'mdb001 G CIRC B 535 425 197'")
    return films


def _is_record(fields: list[str]) -> bool:
    """True of a line about a film, and not of headings and notes."""
    kinds = {*ABNORMALITIES, "NORM"}
    rest = [value.upper() for value in fields[1:3]]
    return bool(_REFERENCE.fullmatch(fields[0])) or (len(rest) == 2 and rest[0] in TISSUES and rest[1] in kinds)


def _add(films: dict[str, _Film], fields: list[str], where: str) -> None:
    """Add a line to its film."""
    if not _REFERENCE.fullmatch(fields[0]) or len(fields) < 3:
        raise BundleError(f"{where}: expected a line such as 'mdb001 G CIRC B 535 425 197' or 'mdb003 D NORM'")
    reference, tissue, kind, *rest = fields
    tissue, kind = tissue.upper(), kind.upper()
    if tissue not in TISSUES:
        raise BundleError(f"{where}: unknown tissue '{fields[1]}'; expected one of {', '.join(TISSUES)}")
    if kind != "NORM" and kind not in ABNORMALITIES:
        raise BundleError(f"{where}: unknown class '{fields[2]}'; expected one of {', '.join(ABNORMALITIES)}, NORM")
    known = reference.lower() in films
    film = films.setdefault(reference.lower(), _Film(tissue))
    if film.tissue != tissue:
        raise BundleError(f"{where}: tissue {tissue}, but {film.tissue} in an earlier line of {reference}")
    if known and (kind == "NORM" or not film.findings):
        raise BundleError(f"{where}: NORM cannot stand beside an abnormality of {reference}")
    if kind == "NORM" and rest and not rest[0].startswith("*"):
        raise BundleError(f"{where}: expected nothing behind NORM, got '{' '.join(rest)}'")
    if kind != "NORM":
        _add_abnormality(film, kind, rest, where)


def _add_abnormality(film: _Film, kind: str, rest: list[str], where: str) -> None:
    severity = rest[0].upper() if rest else ""
    if severity not in SEVERITIES:
        raise BundleError(f"{where}: unknown severity '{severity}'; expected one of {', '.join(SEVERITIES)}")
    film.findings[ABNORMALITIES[kind]] = None
    film.severities.add(SEVERITIES[severity])
    circle = rest[1:]
    if not circle or circle[0].startswith("*"):  # *NOTE 3*
        film.unread += 1
        return
    if len(circle) != 3 or not all(re.fullmatch(r"\d+(\.\d+)?", value) for value in circle):
        raise BundleError(f"{where}: expected x, y and radius of a circle in pixels, got '{' '.join(circle)}'")
    x, y, radius = map(float, circle)
    if not radius or x > SIZE or y > SIZE:
        raise BundleError(f"{where}: the circle '{' '.join(circle)}' has no radius, or lies outside {SIZE} pixels")
    left, upper = max(x - radius, 0.0), max(SIZE - y - radius, 0.0)
    right, lower = min(x + radius, float(SIZE)), min(SIZE - y + radius, float(SIZE))
    film.boxes.append((ABNORMALITIES[kind], [left, upper, right - left, lower - upper]))


def _locate(tree: FileTree, films: Mapping[str, _Film]) -> dict[str, str]:
    """From each reference number to its file, or to what it should be called."""
    by_stem: dict[str, str] = {}
    for file, name in sorted(tree.files.items(), key=lambda pair: pair[0]):
        stem, _, suffix = name.lower().rpartition(".")
        if f".{suffix}" in _SUFFIXES:
            by_stem.setdefault(stem, file)
    return {reference: by_stem.get(reference, f"{reference}{_SUFFIXES[0]}") for reference in films}


def _rows(films: Mapping[str, _Film], names: Mapping[str, str], target: str, prompts: PromptSet) -> Iterator[parts.Row]:
    for reference, film in films.items():
        number = int(reference[3:6])
        worst = next((words for words in reversed(SEVERITIES.values()) if words in film.severities), None)
        value = {
            "density": TISSUES[film.tissue],
            "abnormality": bool(film.findings),
            "severity": worst or NORMAL,
        }[target]
        known = parts.known(laterality="R" if number % 2 else "L", view="MLO", pathology=worst)
        yield parts.Row(
            names[reference],
            {
                **birads.words_of(known),
                "tissue": TISSUES[film.tissue],
                "findings": describe_findings(film.findings) or NORMAL,
            },
            birads.one_hot(TARGETS[target][value], prompts)
            | {words: float(words in film.findings) for words in ABNORMALITIES.values()},
            f"mias{(number + 1) // 2:03}",
            details={**known, **parts.boxes(film.boxes)},
        )
