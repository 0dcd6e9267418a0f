"""Reading label tables: CSV files by column name, with errors that name the file, the column and the row.

Every dataset module reads through these few functions. All values arrive as stripped text, an empty field as ``""``;
:func:`numbers` and :func:`codes` turn a column into what it means. The index of a frame is the row number that a
spreadsheet shows: the header is row 1, the first record row 2.
"""

from __future__ import annotations

import csv
import gzip
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.extras import require
from cleft_bundle.names import plain_name

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SEPARATORS = ",;\t"
_AGE = re.compile(r"(\d+(?:\.\d*)?)([YMWD]?)", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_LONGEST_FIELD = 2**24  # characters; the csv module's own limit of 2**17 is shorter than some region-of-interest lists

#: Years; a larger age is a slip of the keyboard.
OLDEST = 120
#: What sides, splits and sexes are called in tables, in lower case, and what items call them.
SIDES: Mapping[str, str] = {"l": "L", "left": "L", "r": "R", "right": "R"}
SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SEXES: Mapping[str, str | None] = {"f": "F", "female": "F", "m": "M", "male": "M", "o": None, "unknown": None}


def read_table(path: str | Path, required: Sequence[str] = (), optional: Sequence[str] | None = ()) -> pd.DataFrame:
    """Read the named columns of a CSV file as text, of one packed by gzip (``.gz``), or of a workbook's first sheet.

    The separator is the comma, or the semicolon or tab where the header holds no comma. Blank lines are passed over
    and still counted, a byte-order mark is dropped, quoted fields may hold line breaks, and nameless columns at the end
    of the header (some spreadsheets write them) need no field in the records.

    Args:
        path: the table.
        required: columns that must be there.
        optional: columns that are read where they are there; None reads every column.

    Returns:
        One row a record, in the table's order, with the columns found; values are stripped text. The index is the
        row number in a spreadsheet (header = row 1).

    Raises:
        BundleError: the table is missing, is not UTF-8 text, holds no record, lacks or repeats a required column, or
            has a record of another length than its header.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: there is no such table")
    if path.suffix.lower() == ".xlsx":
        return _read_records(path, _sheet(path), required, optional)
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            separator = next((mark for mark in _SEPARATORS if mark in first), ",")
            file.seek(0)
            return _read_records(path, csv.reader(file, delimiter=separator), required, optional)
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: expected UTF-8 text, found another encoding at byte {error.start}") from error
    except (csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise BundleError(f"{path}: not a readable CSV table ({error})") from error


def _sheet(path: Path) -> list[list[str]]:
    """The rows of a workbook's first sheet (``.xlsx``) as text, whole numbers without a decimal point."""
    try:
        book = require("openpyxl", "xlsx").load_workbook(path, read_only=True, data_only=True)
    except BundleError as error:
        raise BundleError(f"{path}: {error}; or save the sheet as a CSV file beside it") from error
    except Exception as error:  # what openpyxl raises on broken files is of many kinds
        raise BundleError(f"{path}: not a readable workbook ({type(error).__name__})") from error
    records = [["" if value is None else f"{value}".removesuffix(".0") for value in row]
               for row in book.worksheets[0].iter_rows(values_only=True)]  # fmt: skip
    book.close()
    return records


def _read_records(
    path: Path, records: Iterable[list[str]], required: Sequence[str], optional: Sequence[str] | None
) -> pd.DataFrame:
    numbered = enumerate(records, start=1)
    header = [name.strip() for name in next(numbered, (1, []))[1]]
    fewest = max((place for place, name in enumerate(header, start=1) if name), default=0)
    for name in required:
        if name not in header:
            raise BundleError(
                f"{path}: column '{name}' is missing{nearest(name, header)}; "
                f"columns present: {', '.join(header) or 'none'}"
            )
    wanted = [name for name in dict.fromkeys(header) if name and (optional is None or name in {*required, *optional})]
    if repeated := [name for name in wanted if header.count(name) > 1]:
        raise BundleError(f"{path}: column '{repeated[0]}' stands in the header {header.count(repeated[0])} times")
    places = [header.index(name) for name in wanted]
    index: list[int] = []
    values: list[list[str]] = []
    stripped = _Stripped()
    for row, record in numbered:
        if not any(record):
            continue
        if not fewest <= len(record) <= len(header):
            raise BundleError(
                f"{path}, row {row}: expected {fewest} fields as in the header, found {len(record)}; "
                "a field that holds the separator needs quotes"
            )
        index.append(row)
        values.append([stripped[record[place]] for place in places])
    if not index:
        raise BundleError(f"{path}: the table is empty, expected a header and at least one row")
    return pd.DataFrame(values, columns=wanted, index=pd.Index(index, name="row"), dtype=object)


class _Stripped(dict[str, str]):
    """From a field to its text; equal fields give one object, for tables repeat a few codes a million times."""

    def __missing__(self, field: str) -> str:
        text = self[field] = field.strip()
        return text


def numbers(column: pd.Series, path: str | Path, allowed: Collection[float] | None = None) -> pd.Series:
    """Turn a column of text into numbers.

    Args:
        column: text values of :func:`read_table`; an empty one becomes NaN.
        path: the table, for the error.
        allowed: the numbers that may occur; None for any finite number.

    Returns:
        A float column with the same index.

    Raises:
        BundleError: a value is no number or not an allowed one; names the column, the count and the first row.
    """
    found = pd.to_numeric(column, errors="coerce").astype(float)
    good = np.isfinite(found) if allowed is None else found.isin(list(allowed))
    expected = "a number" if allowed is None else "one of " + ", ".join(f"{value:g}" for value in sorted(allowed))
    _refuse(column[~good & (column != "")], path, expected)
    return found


def ages(column: pd.Series, path: str | Path) -> pd.Series:
    """Turn a column of ages into years.

    Args:
        column: text values of :func:`read_table`: plain numbers of years, or DICOM's age strings such as ``058Y``,
            ``009M``, ``006W``, ``012D`` (PS3.5 section 6.2, AS). An empty one becomes NaN, and so does one above 120
            years: the headers of the RSNA challenge hold 155.
        path: the table, for the error.

    Returns:
        Years, a float column with the same index.

    Raises:
        BundleError: a value is no age; names the column, the count and the first row.
    """
    meaning = {value: years(value) for value in column.unique()}
    _refuse(column[column.map(meaning).isna() & (column != "")], path, "an age such as 58, 058Y or 009M")
    found = column.map(meaning).astype(float)
    return found.where(found <= OLDEST)


def years(text: str) -> float | None:
    """Years of an age, in plain numbers or as DICOM's age string; None where it is neither."""
    found = _AGE.fullmatch(text)
    return float(found[1]) / _PER_YEAR[found[2].upper()] if found else None


def codes(column: pd.Series, path: str | Path, meanings: Mapping[str, T]) -> list[T | None]:
    """Translate a column of codes, upper and lower case alike.

    Args:
        column: text values of :func:`read_table`; an empty one becomes None.
        path: the table, for the error.
        meanings: from each code, in lower case, to what it means.

    Returns:
        One meaning a row.

    Raises:
        BundleError: a code is unknown; names the column, the count and the first row.
    """
    lower = [value.lower() for value in column]
    unknown = [value != "" and value not in meanings for value in lower]
    _refuse(column[unknown], path, "one of " + ", ".join(meanings))
    return [meanings.get(value) for value in lower]


def names(value: str) -> list[str]:
    """Names that a field joins by ``|``, in lower case, each once, in the table's order."""
    return list(dict.fromkeys(name for part in value.split("|") if (name := plain_name(part))))


def no_gaps(column: pd.Series, path: str | Path) -> None:
    """Refuse a column with empty values.

    Raises:
        BundleError: names the column, the count and the first row.
    """
    empty = column.index[column == ""]
    if len(empty):
        raise BundleError(f"{path}: column '{column.name}' is empty in {rows(len(empty))}, the first is row {empty[0]}")


def refuse_rows(bad: pd.Series, path: str | Path, what: str) -> None:
    """Refuse rows of a table; the message shows the number of a row, not its patient.

    Args:
        bad: whether each row is refused; its index numbers the rows.
        path: of the table, for the message.
        what: what is wrong with them, such as "with a part of a box".

    Raises:
        BundleError: where a row is refused; names the file, how many rows there are, and the first.
    """
    if bad.any():
        raise BundleError(f"{path}: {rows(int(bad.sum()))} {what}, the first is row {bad.idxmax()}")


def no_duplicates(column: pd.Series, path: str | Path, advice: str = "expected one row per image") -> None:
    """Refuse a column in which a value occurs twice.

    Raises:
        BundleError: names the column, the count of surplus rows and the first of them.
    """
    surplus = column[column.duplicated()]
    if len(surplus):
        raise BundleError(
            f"{path}: column '{column.name}' repeats an earlier value in {rows(len(surplus))}, "
            f"the first is '{surplus.iloc[0]}' in row {surplus.index[0]}; {advice}"
        )


def corners(frame: pd.DataFrame, path: str | Path, names: Sequence[str]) -> list[list[float] | None]:
    """Boxes of a table that has them by their corners.

    Args:
        frame: of :func:`read_table`.
        path: the table, for the error.
        names: columns of the left, upper, right and lower edge.

    Returns:
        [x, y, width, height] a row, in the unit of the columns; None where all four are empty.

    Raises:
        BundleError: an edge is no number, a row has a part of a box, or a box without area.
    """
    edges = pd.DataFrame({name: numbers(frame[name], path) for name in names})
    left, upper, right, lower = (edges[name] for name in names)
    refuse_rows(edges.isna().any(axis=1) & edges.notna().any(axis=1), path, "with a part of a box")
    refuse_rows((right <= left) | (lower <= upper), path, "with a box of no area")
    return [
        [x, y, to_x - x, to_y - y] if np.isfinite(x) else None for x, y, to_x, to_y in edges.itertuples(index=False)
    ]


def drop_repeated(frame: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The rows of a table without those that repeat an earlier one in every column; a warning counts them."""
    repeated = frame.duplicated()
    if repeated.any():
        logger.warning("%s: %s that repeat an earlier one passed over, the first is row %s",
                       Path(path).name, rows(int(repeated.sum())), repeated.idxmax())  # fmt: skip
    return frame[~repeated]


def find_table(folder: str | Path, pattern: str) -> Path:
    """Find the one file that a pattern names.

    Args:
        folder: where to look.
        pattern: a file name, or a glob pattern such as ``tables/EMBED_OpenData_clinical*.csv``.

    Returns:
        The path of the file.

    Raises:
        BundleError: no file matches, or several do.
    """
    found = sorted(Path(folder).glob(pattern))
    if not found:
        raise BundleError(f"{folder}: found no table '{pattern}'")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BundleError(f"{folder}: expected one table '{pattern}', found {len(found)} ({names}): name one of them")
    return found[0]


def _refuse(bad: pd.Series, path: str | Path, expected: str) -> None:
    if len(bad):
        raise BundleError(
            f"{path}: column '{bad.name}' holds an unknown value in {rows(len(bad))}, "
            f"the first is '{bad.iloc[0]}' in row {bad.index[0]}; expected {expected}, or nothing"
        )


def rows(count: int) -> str:
    """A count of rows in words: "1 row", "2 rows"."""
    return "1 row" if count == 1 else f"{count} rows"
