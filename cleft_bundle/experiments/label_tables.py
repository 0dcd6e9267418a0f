"""Label tables made from others: one column becomes the finding, and its values get the names of classes."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.experiments.experiment_file import LabelTable
from cleft_bundle.files import replacing
from cleft_bundle.names import joined

#: Columns that :func:`cleft_bundle.data.datasets.folder.datalist` reads, and that are taken as they are.
KEPT = ("patient_id", "study_id", "split", "laterality", "view", "sex", "age")


def write_label_table(table: LabelTable, source: str, folder: str | Path) -> Path:
    """Write ``labels.csv`` of some rows of another table, whose images stay where they are.

    Args:
        table: which column is the finding, and what its values are called. A value that no name is given for is left
            out, unless ``*`` gives one for the rest; so is a row without any finding.
        source: the other table, with ``image`` and the columns that ``table`` names.
        folder: receives ``labels.csv``.

    Returns:
        the file; one that holds the same already is left alone.

    Raises:
        BundleError: where the table or a column does not exist, or no row is left.
    """
    path = Path(source)
    if not path.is_file():
        raise BundleError(f"{path} does not exist")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ("image", table.finding, table.caption or "image"):
        if column not in frame:
            raise BundleError(f"{path}: there is no column {column!r}{nearest(column, map(str, frame.columns))}")
    found = pd.DataFrame({"image": [os.path.abspath(path.parent / name) for name in frame["image"]]})
    found["finding"] = [joined(_named(value, table.values)) for value in frame[table.finding]]
    if table.caption is not None:
        found["caption"] = frame[table.caption]
    found = found.join(frame[[column for column in KEPT if column in frame]])
    found = found[found["finding"] != ""]
    if found.empty:
        raise BundleError(f"{path}: no row of column {table.finding!r} has any of {', '.join(table.values)}")
    place = Path(folder) / "labels.csv"
    text = found.to_csv(index=False)
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        with replacing(place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return place


def _named(value: str, names: dict[str, str]) -> list[str]:
    """The findings of a cell by the names that they are given, each once."""
    parts = [part.strip() for part in value.split("|") if part.strip()]
    rest = names.get("*")
    named = [names.get(part, rest) if names else part for part in parts]
    return list(dict.fromkeys(name for name in named if name is not None))
