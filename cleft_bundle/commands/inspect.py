"""``cleft inspect PATH...``: what files and folders are, before anybody trains or predicts with them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from cleft_bundle.commands.contact_sheets import SIDE, write_sheets
from cleft_bundle.commands.looking import COLUMNS, look_at_all, mark_duplicates
from cleft_bundle.data.image_lists import list_images
from cleft_bundle.data.images.file_trees import walk
from cleft_bundle.data.images.turns import NOT_GIVEN, UNKNOWN
from cleft_bundle.data.tolerant_dataset import reading_workers
from cleft_bundle.errors import BundleError
from cleft_bundle.files import replacing

_LISTS = (".txt", ".json", ".csv")
_REASONS = 10  # kinds of errors that the summary names
_WIDTHS = {"file": 44, "notes": 60}  # characters of a column on the console
_MOST_WORKERS = 8


def inspect(
    *paths: str,
    csv: str | None = None,
    contact_sheet: str | None = None,
    workers: str | int | None = None,
    rows: str | int = 50,
) -> None:
    """Say of every file what it is and whether it can be read: a table, and a summary.

    Nothing of a header that identifies a patient is shown. The names of files are, below the PATH that was given: where
    they hold a patient's name, so do the table, the CSV file and the contact sheet.

    Args:
        paths: images, folders (links are followed, each file is read once), lists of images (.txt, .json, .csv) or
            DICOMDIR files.
        csv: file for the whole table.
        contact_sheet: PNG file for small pictures of all images; further pages are numbered.
        workers: processes that read; by default one a core, 8 at most. 0 reads in this process.
        rows: rows of the table that the console shows.

    Raises:
        BundleError: there is no file to look at, or an argument is not as described.
    """
    number, shown = _whole("workers", workers, reading_workers(_MOST_WORKERS - 1) + 1), _whole("rows", rows, 0)
    for name, value, suffix in (("csv", csv, ".csv"), ("contact_sheet", contact_sheet, ".png")):
        if value is not None and not str(value).lower().endswith(suffix):
            raise BundleError(f"{name}: expected a file that ends in {suffix}, got '{value}'")
    files, left_out = _find([str(path) for path in paths])
    looks = mark_duplicates(look_at_all(files, SIDE if contact_sheet else 0, number))
    table = pd.DataFrame([look.row for look in looks], columns=list(COLUMNS))
    if shown:
        print(_console(table.head(shown)))
    if len(table) > shown > 0:
        print(f"... and {len(table) - shown:,} more: --rows shows more, --csv keeps all")
    for line in _summary(table, left_out):
        print(line)
    if csv:
        with replacing(csv) as temporary:
            table.to_csv(temporary, index=False)
        print(f"table: {csv}")
    if contact_sheet:
        for page in write_sheets(looks, contact_sheet):
            print(f"contact sheet: {page}")


def _whole(name: str, value: str | int | None, default: int) -> int:
    if value is None:
        return default
    if not str(value).isdecimal():
        raise BundleError(f"{name}: expected a whole number, 0 or more, got '{value}'")
    return int(value)


def _find(paths: Sequence[str]) -> tuple[dict[str, str], Counter[str]]:
    """From each file to what it is called: its path below PATH, with the last part of PATH where there are several."""
    found: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for path, prefix in zip(paths, _prefixes(paths), strict=True):
        for file, name in _files_of(path, left_out).items():
            if os.path.realpath(file) in seen:
                left_out["further names of a file"] += 1
                continue
            seen.add(os.path.realpath(file))
            found[file] = printable(f"{prefix}{name}")
    if not found:
        told = f" ({', '.join(f'{n} {reason} left out' for reason, n in left_out.items())})" if left_out else ""
        raise BundleError(f"{printable(', '.join(paths)) or 'PATH is missing'}: there is no file to look at{told}")
    return found, left_out


def _prefixes(paths: Sequence[str]) -> list[str]:
    folders = [Path(path).is_dir() for path in paths]
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    if len(paths) == 1 or len(set(names)) < len(names):
        names = ["" if len(paths) == 1 else path.rstrip("/") for path in paths]
    return [f"{name}/" if name and folder else "" for name, folder in zip(names, folders, strict=True)]


def _files_of(path: str, left_out: Counter[str]) -> dict[str, str]:
    place = Path(path).expanduser()
    if place.is_dir():
        tree = walk(place, ("DICOMDIR",)).once()
        left_out.update(tree.left_out)
        return {os.path.join(place, name): name for name in tree.files}
    if not place.is_file():
        raise BundleError(f"{printable(path)}: there is no such file or folder")
    if place.suffix.lower() in _LISTS or place.name == "DICOMDIR":
        return {item["image"]: item["path"] for item in list_images(str(place))}
    return {str(place): place.name}


def printable(name: str) -> str:
    r"""A name as a console and a CSV file can hold it: bytes that are no text, and control characters, as ``\x0a``."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def _console(table: pd.DataFrame) -> str:
    """The table in few columns, those without any value left out."""
    shown = pd.DataFrame(
        {
            "file": table["file"],
            "kind": table["modality"].where(table["modality"] != "", table["format"]),
            "size": _joined(table, ("rows", "columns"), " x "),
            "view": _with_source(table, "view"),
            "side": _with_source(table, "laterality"),
            "towards": table["orientation"],
            "mm": table["spacing"],
            "VOI": table["voi"],
            "decoder": table["decoder"],
            "notes": [_notes(row) for _, row in table.iterrows()],
        }
    )
    for name, width in _WIDTHS.items():
        shown[name] = [_cut(text, width, front=name == "file") for text in shown[name]]
    shown = shown[[name for name in shown if name == "file" or (shown[name] != "").any()]]
    return shown.to_string(index=False, justify="left", formatters={str(name): _left(shown[name]) for name in shown})


def _left(column: pd.Series) -> Callable[[str], str]:
    width = max(map(len, column))
    return lambda text: text.ljust(width)


def _joined(table: pd.DataFrame, names: Iterable[str], between: str) -> list[str]:
    rows = zip(*(table[name] for name in names), strict=True)
    return [between.join(map(str, values)) if all(value != "" for value in values) else "" for values in rows]


def _with_source(table: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(table[name], table[f"{name}_source"], strict=True)
    return [f"{value} ({source})" if value else "" for value, source in pairs]


def _notes(row: pd.Series) -> str:
    copy = f"same {row['duplicate_by']} as {row['duplicate_of']}" if row["duplicate_of"] else ""
    traits = row["traits"].replace("|", ", ")
    turn = "" if row["orientation_check"] == "upright" else row["orientation_check"]
    unknown = "orientation unknown" if row["turn"] == UNKNOWN else ""
    return "; ".join(filter(None, (row["error"], row["blank"] and "blank", unknown, turn, traits, copy)))


def _cut(text: str, width: int, *, front: bool) -> str:
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if front else f"{text[: width - 1]}…"


def _summary(table: pd.DataFrame, left_out: Counter[str]) -> list[str]:
    failed = table["error"] != ""
    counts = {
        "files": len(table),
        "images": int((~failed).sum()),
        "cannot be read": int(failed.sum()),
        "blank": int((table["blank"] != "").sum()),
        "duplicates": int((table["duplicate_of"] != "").sum()),
    }
    lines = [", ".join(f"{count:,} {name}" for name, count in counts.items())]
    images = table[~failed]
    for name in ("view", "laterality"):
        sources = images[f"{name}_source"].replace("", "not known").value_counts()
        if (sources.index != "not known").any():
            lines.append(f"{name} by: " + ", ".join(f"{source} {count:,}" for source, count in sources.items()))
    for title, name, silent in (
        ("turned upright by header", "turn", NOT_GIVEN),
        ("lies by its pixels, taken for a chest or breast", "orientation_check", ""),
    ):
        turns = images[name][images[name] != ""].value_counts()
        if (turns.index != silent).any():
            lines.append(f"{title}: " + ", ".join(f"{turn} {count:,}" for turn, count in turns.items()))
    traits = Counter(trait for text in images["traits"] for trait in text.split("|") if trait)
    for title, counter in (("traits", traits), ("left out", left_out)):
        if counter:
            lines.append(f"{title}: " + ", ".join(f"{count:,} {name}" for name, count in counter.most_common()))
    reasons = Counter(_cut(text, 100, front=False) for text in table["error"][failed])
    lines += [f"cannot be read, {count:,}: {reason}" for reason, count in reasons.most_common(_REASONS)]
    return lines
