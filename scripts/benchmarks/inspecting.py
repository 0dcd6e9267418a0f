"""Cost of a look at a folder: images per second of ``cleft inspect``, by the number of processes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cleft_bundle.commands.contact_sheets import SIDE, write_sheets
from cleft_bundle.commands.looking import look_at_all, mark_duplicates
from cleft_bundle.data import phantoms
from cleft_bundle.data.images.file_trees import walk
from cleft_bundle.errors import BundleError


def inspecting(
    files: int = 2000, workers: Sequence[int] = (0, 2), pictures: bool = True, out: str | None = None, seed: int = 0
) -> None:
    """Look at a folder of chest phantoms, once by each number of processes, and print a table.

    Args:
        files: number of DICOM files; of 500 phantoms, whose copies fill the folder.
        workers: numbers of processes that read; 0 is the process itself.
        pictures: write a contact sheet, too; its time is a column of its own.
        out: file to write the table to as well.
        seed: of the phantoms.

    Raises:
        BundleError: where a number is out of range.
    """
    if files < 1:
        raise BundleError(f"files: expected 1 or more, got {files}")
    lines = ["| processes | files | images/s | contact sheet, s |", "| --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        root = _fill(Path(folder), files, seed)
        named = {str(root / name): name for name in walk(root).files}
        for number in workers:
            start = time.perf_counter()
            looks = mark_duplicates(look_at_all(named, SIDE if pictures else 0, number))
            seconds = time.perf_counter() - start
            if failed := [look for look in looks if look.row["error"]]:
                raise BundleError(f"{len(failed)} phantoms cannot be read: {failed[0].row['error']}")
            start = time.perf_counter()
            if pictures:
                write_sheets(looks, Path(folder, "sheet.png"))
            sheet = f"{time.perf_counter() - start:.1f}" if pictures else "-"
            lines.append(f"| {number} | {len(looks):,} | {len(looks) / seconds:.1f} | {sheet} |")
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _fill(folder: Path, files: int, seed: int) -> Path:
    """A folder of as many phantoms, each drawn one copied as often as is needed."""
    drawn = phantoms.chest(str(folder / "drawn"), patients=min(500, max(5, files // 2)), seed=seed)
    sources = sorted(Path(drawn).rglob("*.dcm"))[:500]
    root = folder / "files"
    root.mkdir()
    for number in range(files):
        shutil.copyfile(sources[number % len(sources)], root / f"{number:06}.dcm")
    return root
