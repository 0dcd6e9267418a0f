"""Boxes around the findings that phantoms were drawn with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cleft_bundle.data import tables
from cleft_bundle.data.item import Item, changed
from cleft_bundle.errors import BundleError

LOCATIONS = "locations.csv"
LOCATION_COLUMNS = ("Path", "finding", "x", "y", "width", "height")


def add_boxes(items: Iterable[Item], root: str | Path) -> list[Item]:
    """Add to items of chest phantoms where their findings were drawn, in the keys that RSNA's items have.

    Args:
        items: as :func:`cleft_bundle.data.datasets.chexpert.datalist` lists them from the phantoms' folder.
        root: the phantoms' folder, which holds ``locations.csv``.

    Returns:
        copies of the items; those that show something have ``boxes``, a list of [x, y, width, height] in pixels of the
        file from its upper left corner, and ``box_findings``, the finding of each in lower case. A box holds what was
        drawn of a finding where it shows at half its strength or more; a finding on both sides has two.

    Raises:
        BundleError: where the folder holds no such table, or an item is none of its images.
    """
    path = Path(root, LOCATIONS)
    if not path.is_file():
        raise BundleError(f"{path}: no such table; it is drawn with the chest phantoms, so delete the folder to redraw")
    frame = tables.read_table(path, required=LOCATION_COLUMNS)
    for column in LOCATION_COLUMNS[2:]:
        frame[column] = tables.numbers(frame[column], path)
    folder = str(Path(root).absolute())
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for name, finding, *box in frame[list(LOCATION_COLUMNS)].itertuples(index=False):
        found.setdefault(f"{folder}/{name}", []).append((finding.lower(), box))
    out = []
    for item in items:
        if not item["image"].startswith(f"{folder}/"):
            raise BundleError(f"{path}: {item['name']} is no image of this folder")
        marked = found.get(item["image"], [])
        boxes = {"boxes": [box for _, box in marked], "box_findings": [finding for finding, _ in marked]}
        out.append(changed(item, **(boxes if marked else {})))
    return out
