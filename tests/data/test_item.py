"""Whatever makes items makes them of the keys that Item documents."""

import ast
import inspect
import json
import math
import re
from pathlib import Path

import pytest

from cleft_bundle.data import chexpert, embed, load_prompts, phantoms, read_datalist, write_datalist
from cleft_bundle.data import item as items
from cleft_bundle.data.item import Item, changed, make_item

PACKAGE = Path(inspect.getfile(items)).parents[1]
KEYS = Item.__annotations__
PROMPTS = PACKAGE.parent / "configs" / "prompts"


@pytest.mark.parametrize(
    ("draw", "datalist", "prompts"),
    [
        (phantoms.chest, chexpert.datalist, "chexpert.json"),
        (phantoms.breast, embed.datalist, "embed_density.json"),
    ],
    ids=["chest", "breast"],
)
def test_items_of_a_set_have_the_documented_keys_and_ranges(draw, datalist, prompts, tmp_path):
    found = datalist(draw(str(tmp_path), patients=5, seed=0), prompts=load_prompts(PROMPTS / prompts))
    assert len(found) >= 5
    for item in found:
        assert Item.__required_keys__ <= set(item) <= set(KEYS)
        assert list(item)[:3] == ["image", "name", "caption"]
        assert Path(item["image"]).is_file()
        assert set(item["label"]) <= {0.0, 1.0} or any(math.isnan(value) for value in item["label"])
        assert re.fullmatch("[0-9a-f]{16}", item["patient_id"])
        assert item.get("laterality", "L") in "LR"
        assert 0 <= item.get("age", 0) <= 120


def test_the_study_of_an_image_without_one_is_its_patient():
    item = make_item("/a.png", "a.png", {"caption": "edema"}, label=[1.0], patient_id="p", details={"view": "PA"})
    assert item == {
        "image": "/a.png",
        "name": "a.png",
        "caption": "edema",
        "label": [1.0],
        "patient_id": "p",
        "study_id": "p",
        "split": None,
        "view": "PA",
    }
    other = changed(item, split="test")
    assert (item["split"], other["split"]) == (None, "test")


def test_an_item_comes_back_from_a_datalist_file_with_its_keys(tmp_path):
    item = make_item(
        f"{tmp_path}/a.png", "a.png", {"caption": "c"}, label=[math.nan], patient_id="0" * 16, split="test",
        details={"boxes": [[0.0, 1.0, 2.0, 3.0]], "box_findings": ["edema"]},
    )  # fmt: skip
    write_datalist({"train": [], "validation": [], "test": [item]}, tmp_path / "d.json", tmp_path, ["edema"])
    assert json.loads((tmp_path / "d.json").read_text())["test"][0]["label"] == [None]
    (again,) = read_datalist(tmp_path / "d.json", tmp_path, ["edema"])
    assert {**again, "label": None} == {**item, "label": None}


def test_items_are_built_in_one_place():
    """No module but data/item.py writes the required keys of an item into a dictionary."""
    wanted = {"image", "name", "label", "patient_id"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict) and path.name != "item.py":
                written = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                assert not wanted <= written, f"{path}, line {node.lineno}"


def test_every_key_is_documented():
    for kind in (items.Described, Item):
        documented = re.findall(r"^    (\w+): ", inspect.getdoc(kind) or "", re.MULTILINE)
        assert documented == [key for key in kind.__annotations__ if key in documented]
        own = set(kind.__annotations__) - (set(items.Described.__annotations__) if kind is Item else set())
        assert own == set(documented)
