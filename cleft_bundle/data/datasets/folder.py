"""A hospital's own images: a folder and a CSV table.

The table has a column ``image`` (path relative to the table's folder, or absolute) and ``caption`` or ``finding`` or
both. ``finding`` holds one name or several joined by ``|``. ``split``, ``patient_id``, ``study_id``, ``laterality``,
``view``, ``sex`` and ``age`` are read where they are there; other columns are left alone.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.captions.prompts import load_prompts as read_prompts
from cleft_bundle.data.captions.templates import slots_of
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

#: The caption of an image, and the prompt of a class, where no prompt file is given.
TEMPLATE = "this is a chest x ray of a patient with {findings}"
#: What the caption template may name.
SLOTS = ("findings", "side", "view", "sex", "age")

_OPTIONAL = ("caption", "finding", "split", "patient_id", "study_id", "laterality", "view", "sex", "age")


def set_name(root: str | Path) -> str:
    """Name of a set: its folder, or its table."""
    return Path(root).name


def load_prompts(
    root: str | Path, template: str = TEMPLATE, table: str = "labels.csv", prompt_file: str | Path | None = None
) -> PromptSet:
    """Make the caption template and the classes from the findings that a table names.

    Args:
        root: the folder of the table, or the table itself.
        template: caption with the slot ``{findings}``; with one finding filled in it is the prompt of that class.
        table: file name of the table where ``root`` is a folder.
        prompt_file: template and classes come from it, see :func:`cleft_bundle.data.load_prompts`, and not from the
            table.

    Returns:
        One class a distinct finding, in lower case and alphabetical order.

    Raises:
        BundleError: the table or its column ``finding`` is missing or empty, or the template has no ``{findings}``.
    """
    if prompt_file is not None:
        return read_prompts(prompt_file)
    path = _table_path(root, table)
    frame = _read(path)
    if "finding" not in frame:
        raise BundleError(
            f"{path}: column 'finding' is missing, and the classes are made from it; "
            "add it, or name a prompt file with the classes"
        )
    names = sorted({name for value in frame["finding"] for name in tables.names(value)})
    if not names:
        raise BundleError(f"{path}: column 'finding' is empty in every row, expected the names of findings")
    if set(slots_of(template, "template")) != {"findings"}:
        raise BundleError(f"template '{template}': expected the slot {{findings}} and no other")
    classes = {name: [template.format(findings=name)] for name in names}
    return PromptSet((template,), classes, source=str(path))


def datalist(root: str | Path, table: str = "labels.csv", *, prompts: PromptSet | None = None) -> list[Item]:
    r"""List a hospital's images with captions and labels.

    A row's own caption wins over the templates. A row with neither caption nor finding is left out, and counted in the
    log. Findings of a row that has any are complete: a class that it does not name is absent; a row without findings
    has unknown labels (NaN).

    Args:
        root: the folder of the table, or the table itself.
        table: file name of the table where ``root`` is a folder.
        prompts: caption templates (slots: ``findings``, ``side``, ``view``, ``sex``, ``age``) and classes; None takes
            :func:`load_prompts` where the table has findings, and no classes where it has captions only.

    Returns:
        One item per image: ``image``, ``name`` (path relative to the table's folder, or as the table has it where the
        image lies elsewhere), ``caption``, ``captions`` where the templates give several, ``findings``, ``label``
        (order of ``prompts.classes``), ``patient_id``, ``study_id`` (the patient's where the table has none),
        ``split``, and ``laterality`` ("L", "R"), ``view``, ``sex`` ("F", "M") and ``age`` (years) where known.

    Raises:
        BundleError: the table, a column or a value is not as described, or an image has two rows; names it.

    Examples:
        >>> from pathlib import Path
        >>> Path("set").mkdir()
        >>> _ = Path("set/labels.csv").write_text("image,finding,patient_id\na.png,edema|mass,1\nb.png,mass,2\n")
        >>> _ = [Path("set", name).touch() for name in ("a.png", "b.png")]
        >>> [(item["caption"][40:], item["label"]) for item in datalist("set", prompts=load_prompts("set"))]
        [('edema, mass', [1.0, 1.0]), ('mass', [0.0, 1.0])]
    """
    path = _table_path(root, table)
    frame = _read(path)
    if "caption" not in frame and "finding" not in frame:
        raise BundleError(
            f"{path}: expected a column 'caption' or 'finding'; columns present: {', '.join(frame.columns)}"
        )
    tables.no_gaps(frame["image"], path)
    tables.no_duplicates(frame["image"], path, "expected one row per image, with several findings joined by '|'")
    if prompts is None and "finding" in frame:
        prompts = load_prompts(path)
    if prompts is not None:
        prompts.check_slots(SLOTS)
    if "patient_id" in frame:
        tables.no_gaps(frame["patient_id"], path)
    else:
        logger.warning("%s: no column 'patient_id', so each image counts as a patient of its own", path.name)
    items = _items(frame, path, prompts)
    several = sum(len(tables.names(value)) > 1 for value in frame.get("finding", ()))
    logger.info("%s: %d rows, %d items, %d rows with several findings; left out: %d without caption and finding",
                path.name, len(frame), len(items), several, len(frame) - len(items))  # fmt: skip
    return items


def images_of(root: str | Path, table: str = "labels.csv") -> list[Item]:
    """List the images of a table with what is known of them: all rows, without captions, findings and labels.

    Args:
        root: the folder of the table, or the table itself.
        table: file name of the table where ``root`` is a folder.

    Returns:
        Items as :func:`datalist` makes them, in the table's order; ``caption`` is "", ``findings`` and ``label`` are
        empty.

    Raises:
        BundleError: as :func:`datalist`.
    """
    path = _table_path(root, table)
    frame = _read(path)
    tables.no_gaps(frame["image"], path)
    tables.no_duplicates(frame["image"], path)
    if "patient_id" in frame:
        tables.no_gaps(frame["patient_id"], path)
    blank = pd.Series("", index=frame.index)
    items = _items(frame.assign(caption="-", finding=blank), path, None)  # a row without a caption is left out there
    return [{**item, "caption": ""} for item in items]


def _table_path(root: str | Path, table: str) -> Path:
    root = Path(root)
    return root if root.suffix.lower() == ".csv" else root / table


def _read(path: Path) -> pd.DataFrame:
    return tables.read_table(path, required=["image"], optional=_OPTIONAL)


def _items(frame: pd.DataFrame, path: Path, prompts: PromptSet | None) -> list[Item]:
    classes = list(prompts.classes) if prompts else []
    splits = _splits(frame, path)
    unnamed: set[str] = set()
    items = []
    for row, split, detail in zip(frame.to_dict("records"), splits, _details(frame, path), strict=True):
        names = tables.names(row.get("finding", ""))
        unnamed.update(name for name in names if name not in classes)
        words = {
            **parts.words_of(detail),
            "findings": describe_findings(names),
            "view": detail.get("view", "").lower(),
        }
        own = " ".join(row.get("caption", "").split())
        texts = [own] if own else prompts.write(words) if prompts and names else []
        if not texts:
            continue
        findings = {name: float(name in names) for name in [*classes, *names]} if names else {}
        image, name = _locate(path, row["image"])
        items.append(
            make_item(
                image,
                name,
                parts.caption_keys(texts),
                findings=findings,
                label=[findings.get(label, math.nan) for label in classes],
                patient_id=pseudonym(row.get("patient_id", name)),
                study_id=pseudonym(row["study_id"]) if row.get("study_id") else None,
                split=split,
                details=detail,
            )
        )
    if unnamed and prompts:
        shown = ", ".join(sorted(unnamed)[:5])
        logger.warning("%s: %d findings are none of the classes: %s", path.name, len(unnamed), shown)
    return items


def _splits(frame: pd.DataFrame, path: Path) -> list[str | None]:
    """The split of each row: named in all of them, or in none."""
    if "split" not in frame or not (frame["split"] != "").any():
        return [None] * len(frame)
    tables.no_gaps(frame["split"], path)
    return tables.codes(frame["split"], path, tables.SPLITS)


def _details(frame: pd.DataFrame, path: Path) -> list[dict[str, Any]]:
    """Laterality, view, sex and age of each row, without what is unknown."""
    blank = pd.Series("", index=frame.index)
    columns = {
        "laterality": tables.codes(frame.get("laterality", blank), path, tables.SIDES),
        "view": [value.upper() or None for value in frame.get("view", blank)],
        "sex": tables.codes(frame.get("sex", blank), path, tables.SEXES),
        "age": [None if math.isnan(age) else age for age in tables.numbers(frame.get("age", blank), path).tolist()],
    }
    rows = zip(*columns.values(), strict=True)
    return [{key: value for key, value in zip(columns, row, strict=True) if value is not None} for row in rows]


def _locate(path: Path, image: str) -> tuple[str, str]:
    """Absolute path and name of an image that the table gives relative to its folder, or absolute."""
    folder = path.absolute().parent
    place = folder / image
    name = place.relative_to(folder) if place.is_relative_to(folder) else Path(image)
    return str(place), name.as_posix()
