"""Shared by the dataset modules: the parts of an item, and the words that captions take from them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.vocabulary import SEX_WORDS, SIDE_WORDS

_EXAMPLES = 3


def known(**details: Any) -> dict[str, Any]:
    """The details that are known: without None, empty text and NaN."""
    return {
        key: value
        for key, value in details.items()
        if value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
    }


def words_of(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details of an image that a caption may mention.

    Args:
        details: any of ``sex`` ("F", "M"), ``laterality`` ("L", "R"), ``age`` (years) and others.

    Returns:
        The details with ``sex`` as a word, ``side`` in place of ``laterality``, and ``age`` in whole years, from one
        year on.
    """
    words = dict(details)
    age = words.pop("age", None)
    return known(
        **words | {"sex": SEX_WORDS.get(words.get("sex", "")), "side": SIDE_WORDS.get(words.pop("laterality", ""))},
        age=math.floor(age) if age and age >= 1 else None,
    )


def labels(findings: Mapping[str, float], prompts: PromptSet) -> list[float]:
    """Labels in the order of the classes.

    Args:
        findings: 1.0 or 0.0 by name; a class that is not among them is unknown.
        prompts: the classes.

    Returns:
        1.0, 0.0 or NaN for each class.
    """
    return [findings.get(name, math.nan) for name in prompts.classes]


def caption_writer(prompts: PromptSet) -> Callable[[Mapping[str, object]], dict[str, Any]]:
    """Make a function that turns words into the caption keys of an item.

    Args:
        prompts: the caption templates.

    Returns:
        A function from the values of the slots to ``caption`` and, where there are several, ``captions``; to nothing
        where no template could be filled. Equal words are written once: tables repeat them.
    """
    written: dict[tuple[tuple[str, object], ...], dict[str, Any]] = {}

    def write(words: Mapping[str, object]) -> dict[str, Any]:
        key = tuple(words.items())
        if key not in written:
            written[key] = caption_keys(prompts.write(words))
        return written[key]

    return write


def caption_keys(texts: Sequence[str]) -> dict[str, Any]:
    """``caption`` and, where there are several, ``captions``; nothing where there is none."""
    several = {"captions": list(texts)} if len(texts) > 1 else {}
    return {"caption": texts[0], **several} if texts else {}


@dataclass(frozen=True)
class Row:
    """An image as a table has it, from which :func:`list_items` makes an item.

    Attributes:
        name: path within the set.
        words: values of the slots that captions may name.
        findings: 1.0 or 0.0 by name; what is not known is left out.
        patient: identifier, as the table has it.
        study: identifier; None: the patient's.
        split: of the set, or None.
        details: what else is known, by the keys of :class:`cleft_bundle.data.item.Item`.
        texts: further captions, as they are.
        label: in the order of the classes; None: that of the findings.
    """

    name: str
    words: Mapping[str, object]
    findings: dict[str, float]
    patient: str
    study: str | None = None
    split: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    texts: Sequence[str] = ()
    label: list[float] | None = None


def list_items(root: str, rows: Iterable[Row], prompts: PromptSet) -> list[Item]:
    """Make the items of a table's images.

    Args:
        root: the folder of the set, absolute.
        rows: the images.
        prompts: caption templates and classes.

    Returns:
        One item per image that a template captions, in the order of the rows.
    """
    write, ids = caption_writer(prompts), _Pseudonyms()
    found = []
    for row in rows:
        texts = write(known(**row.words))
        if row.texts:
            own = texts.get("captions") or [*filter(None, [texts.get("caption")])]
            texts = caption_keys(list(dict.fromkeys([*own, *row.texts])))
        if texts:
            found.append(
                make_item(
                    f"{root}/{row.name}",
                    row.name,
                    texts,
                    findings=row.findings,
                    label=labels(row.findings, prompts) if row.label is None else row.label,
                    patient_id=ids[row.patient],
                    study_id=ids[row.study] if row.study else None,
                    split=row.split,
                    details=row.details,
                )
            )
    return found


class _Pseudonyms(dict[str, str]):
    """From identifiers to pseudonyms, each hashed once."""

    def __missing__(self, value: str) -> str:
        found = self[value] = pseudonym(value)
        return found


def boxes(marked: Iterable[tuple[str, Sequence[float]]]) -> dict[str, Any]:
    """The keys of an item with boxes, each with its finding; none without."""
    pairs = list(marked)
    return {"boxes": [list(box) for _, box in pairs], "box_findings": [name for name, _ in pairs]} if pairs else {}


def image_files(root: str | Path, folders: Sequence[str]) -> dict[str, str]:
    """List the files of some folders, without looking at each.

    Args:
        root: the folder of a dataset.
        folders: patterns of folders below it, such as ``images_*/images``; "." for the root itself.

    Returns:
        From each file name to its path below ``root``, with forward slashes. Of files of one name, the first counts.
    """
    root = Path(root)
    found: dict[str, str] = {}
    for pattern in folders:
        for folder in [root] if pattern == "." else sorted(root.glob(pattern)):
            if not folder.is_dir():
                continue
            inner = folder.relative_to(root).as_posix()
            for name in sorted(os.listdir(folder)):
                found.setdefault(name, name if inner == "." else f"{inner}/{name}")
    return found


def some(values: Iterable[object]) -> str:
    """The first three of the values, for messages and logs."""
    listed = [str(value) for value in values]
    return ", ".join(listed[:_EXAMPLES]) + (", ..." if len(listed) > _EXAMPLES else "")


def report_images(logger: logging.Logger, wanted: Collection[str], files: Mapping[str, str]) -> None:
    """Say how many images of a table are not there, and how many files no row names; nothing where all agree.

    Args:
        logger: whose warning and information it is.
        wanted: the file names of the table.
        files: what :func:`image_files` found; other kinds of files than those of the table are passed over.
    """
    kinds = {os.path.splitext(name)[1].lower() for name in wanted}
    absent = [name for name in wanted if name not in files]
    surplus = [name for name in files if name not in wanted and os.path.splitext(name)[1].lower() in kinds]
    if absent:
        logger.warning("%d of %d images of the table are not there: %s",
                       len(absent), len(wanted), some(sorted(absent)))  # fmt: skip
    if surplus:
        logger.info("%d images without a row left out: %s", len(surplus), some(surplus))


def report_kept(logger: logging.Logger, files: Mapping[str, str], listed: Iterable[str], kept: Iterable[str]) -> None:
    """:func:`report_images` where a set leaves out rows by design: their files are not called surplus.

    Args:
        logger: as there.
        files: as there, or those of a :class:`cleft_bundle.data.images.file_trees.FileTree`, by path.
        listed: files of all rows, by the keys of ``files``.
        kept: files of the rows that stay.
    """
    wanted = set(kept)
    rest = set(listed) - wanted
    report_images(logger, wanted, {file: name for file, name in files.items() if file not in rest})
