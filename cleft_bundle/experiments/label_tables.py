"""Label tables made from others: one column becomes the finding, and its values get the names of classes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.experiments.experiment_file import LabelTable
from cleft_bundle.files import replacing
from cleft_bundle.names import joined

#: Columns that :func:`cleft_bundle.data.datasets.folder.datalist` reads, and that are taken as they are.
KEPT = ("patient_id", "study_id", "split", "laterality", "view", "sex", "age")

_COLUMN = re.compile(r"\{([^{}]+)\}")


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
    words = _COLUMN.split(table.caption or "")
    spoken = words[1::2] or ([table.caption] if table.caption else [])
    for column in ("image", table.finding, *spoken, *table.where, *table.without):
        if column not in frame:
            raise BundleError(f"{path}: there is no column {column!r}{nearest(column, map(str, frame.columns))}")
    for column, value in table.where.items():
        frame = frame[frame[column] == value].reset_index(drop=True)
    found = pd.DataFrame({"image": [os.path.abspath(path.parent / name) for name in frame["image"]]})
    found["finding"] = [joined(_named(value, table.values)) for value in frame[table.finding]]
    if len(words) > 1:
        found["caption"] = [
            "".join(row[word].replace("|", ", ").lower() if place % 2 else word for place, word in enumerate(words))
            for row in frame.to_dict("records")
        ]
    elif table.caption is not None:
        found["caption"] = frame[table.caption]
    found = found.join(frame[[column for column in KEPT if column in frame and column not in table.without]])
    found = found[found["finding"] != ""]
    if found.empty:
        lacking = f"column {table.finding!r} has any of {', '.join(table.values) or 'its values'}"
        raise BundleError(f"{path}: no row {''.join(f'with {k} {v!r} ' for k, v in table.where.items())}of {lacking}")
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
