"""Put the tables of experiments, and their pictures, into the page that tells of them.

python scripts/experiment_tables.py eval/experiments docs/benchmark.md

In the page, what stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced by the table of experiment
NAME; one that has no table yet is said to lack it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import fire

from cleft_bundle.errors import BundleError
from cleft_bundle.files import save_text

_PLACE = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LACKING = "Not run yet.\n"


def fill(experiments: str, page: str = "docs/benchmark.md", images: str = "images/experiments") -> None:
    """Fill the page.

    Args:
        experiments: what ``cleft experiment`` was given as ``--output_dir``.
        page: Markdown with the places of the tables.
        images: folder of the pictures, as the page names it.

    Raises:
        BundleError: where a place or the page is missing.
    """
    place = Path(page)
    if not place.is_file():
        raise BundleError(f"{place} does not exist")
    text = place.read_text(encoding="utf-8")
    names = [found[2] for found in _PLACE.finditer(text)]
    if not names:
        raise BundleError(f"{place} has no place for a table: <!-- table: NAME --> and <!-- end -->")
    for name in names:
        print(f"{name}: {'table' if _table(Path(experiments) / name) else 'no table yet'}")
    filled = _PLACE.sub(lambda one: one[1] + _inserted(Path(experiments), one[2], place, images) + one[3], text)
    save_text(filled, place)


def _inserted(experiments: Path, name: str, page: Path, images: str) -> str:
    folder = experiments / name
    if not (table := _table(folder)):
        return LACKING
    picture = page.parent / images / f"{name}.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "forest.svg", picture)
    return f"{table}\n![Differences to the reference]({images}/{name}.svg)\n"


def _table(folder: Path) -> str:
    """The table and its notes, without the heading and the description, which the page has in its own words."""
    file = folder / "table.md"
    if not file.is_file():
        return ""
    rows, notes = file.read_text(encoding="utf-8").partition("\n| ")[2].split("\n\n", 1)
    return f"| {rows}\n\n" + "".join(f"{note}  \n" for note in notes.strip().splitlines())


if __name__ == "__main__":
    try:
        fire.Fire(fill)
    except BundleError as error:
        sys.exit(f"error: {error}")
