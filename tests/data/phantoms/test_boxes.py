import csv
from pathlib import Path

import pytest
from studies.pointing_game import boxes_by_finding

from cleft_bundle.data import load_prompts
from cleft_bundle.data.datasets import chexpert
from cleft_bundle.data.phantoms import add_boxes, chest
from cleft_bundle.errors import BundleError
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return Path(chest(str(tmp_path_factory.mktemp("chest")), 8, 2))


@pytest.fixture(scope="module")
def items(root):
    return chexpert.datalist(root, prompts=load_prompts(ROOT / "configs" / "prompts" / "chexpert.json"))


def test_items_get_the_boxes_of_what_their_table_calls_positive(root, items):
    boxed = add_boxes(items, root)
    assert len(boxed) == len(items)
    with (root / "locations.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if any(row["Path"] in item["image"] for item in items)]
    assert sum(len(item.get("boxes", [])) for item in boxed) == len(rows) > 0
    for item, before in zip(boxed, items, strict=True):
        assert "boxes" not in before
        positive = {name for name, value in item["findings"].items() if value == 1} - {"no finding"}
        uncertain = {name for name in boxes_by_finding(item) if name not in item["findings"]}
        assert set(boxes_by_finding(item)) == positive | uncertain
    first = rows[0]
    item = next(item for item in boxed if first["Path"] in item["image"])
    place = [float(first[name]) for name in ("x", "y", "width", "height")]
    assert place in boxes_by_finding(item)[first["finding"].lower()]


def test_a_folder_without_the_table_or_of_others_is_named(root, items, tmp_path):
    with pytest.raises(BundleError, match=r"locations\.csv: no such table"):
        add_boxes(items, tmp_path)
    (tmp_path / "locations.csv").write_bytes((root / "locations.csv").read_bytes())
    with pytest.raises(BundleError, match="is no image of this folder"):
        add_boxes(items, tmp_path)
