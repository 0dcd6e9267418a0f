import gzip
import json
import re
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from cleft_bundle.data import datalists, make_splits, pseudonym
from cleft_bundle.errors import BundleError
from tests.data.items import item, named

NAN = float("nan")
CLASSES = ["edema", "mass"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    return tmp_path / "set"


@pytest.fixture
def splits(root):
    """Divided items whose images exist, one of them outside the set's folder, and with an unknown label."""
    items = []
    for number in range(24):
        path = root / "images" / f"{number}.png" if number else root.parent / "elsewhere.png"
        Image.new("L", (4, 4)).save(path)
        label = (float(number % 2), NAN if number == 3 else float(number % 2 == 0))
        each = item(str(path), number, number, label, caption=f"a \u201cmass\u201d of {number}")
        items.append(
            {**each, "name": f"images/{number}.png", "view": "PA", "findings": {"edema": label[0]}, "age": 40.0}
        )
    return make_splits(items)


def text_of(splits):
    """The content as text: NaN is not equal to itself."""
    return json.dumps(splits, sort_keys=True)


def test_it_comes_back_as_it_was_and_divides_alike(splits, root, tmp_path):
    path = tmp_path / "out" / "datalist.json"
    datalists.write_datalist(splits, path, root, CLASSES)
    items = datalists.read_datalist(path, root, CLASSES)
    again = make_splits(items)
    assert text_of(again) == text_of(splits)
    assert datalists.fingerprint(again) == datalists.fingerprint(splits) == json.loads(path.read_text())["fingerprint"]
    assert [file.name for file in path.parent.iterdir()] == ["datalist.json"]


def test_the_set_may_have_moved(splits, root, tmp_path):
    datalists.write_datalist(splits, tmp_path / "d.json", root, CLASSES)
    moved = root.rename(tmp_path / "moved")
    again = make_splits(datalists.read_datalist(tmp_path / "d.json", moved, CLASSES))
    assert datalists.fingerprint(again) == datalists.fingerprint(splits)


def test_monais_own_loader_reads_it(splits, root, tmp_path):
    datalists.write_datalist(splits, tmp_path / "d.json", root, CLASSES)
    for key, split in datalists.KEYS.items():
        loaded = load_decathlon_datalist(tmp_path / "d.json", data_list_key=key, base_dir=root)
        assert [each["image"] for each in loaded] == [each["image"] for each in splits[split]]
        assert [each["caption"] for each in loaded] == [each["caption"] for each in splits[split]]
        assert all(Path(each["image"]).is_file() for each in loaded)


def test_the_file_is_plain_json_with_relative_paths_and_pseudonyms(splits, root, tmp_path):
    datalists.write_datalist(splits, tmp_path / "d.json", root, CLASSES)
    text = (tmp_path / "d.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert text.count(str(tmp_path)) == text.count(str(root.parent / "elsewhere.png")) == 1
    assert all(re.fullmatch("[0-9a-f]{16}", value) for value in re.findall(r'"patient_id": "([^"]*)"', text))


def test_a_table_as_root_stands_for_its_folder(splits, root, tmp_path):
    table = root / "labels.csv"
    table.write_text("image\n")
    datalists.write_datalist(splits, tmp_path / "d.json", table, CLASSES)
    again = make_splits(datalists.read_datalist(tmp_path / "d.json", table, CLASSES))
    assert text_of(again) == text_of(splits)


def test_identifiers_of_a_foreign_list_become_pseudonyms(root, tmp_path):
    rows = [{"image": "a.png", "name": "a.png", "caption": "c", "label": [1, None], "patient_id": "Doe^Jane"}]
    (tmp_path / "d.json").write_text(json.dumps({"classes": CLASSES, "training": rows}))
    (read,) = datalists.read_datalist(tmp_path / "d.json", root, CLASSES)
    assert read["patient_id"] == pseudonym("Doe^Jane")
    assert read["split"] == "train"


def test_a_changed_file_is_told(splits, root, tmp_path, caplog):
    path = tmp_path / "d.json"
    datalists.write_datalist(splits, path, root, CLASSES)
    datalists.read_datalist(path, root, CLASSES)
    assert caplog.text == ""
    path.write_text(path.read_text().replace("mass", "nodule"))
    content = json.loads(path.read_text())
    datalists.read_datalist(path, root, content["classes"])
    assert "has been changed" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"d\.json does not exist; training writes one"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "expected an object with the keys training"),
        ("{", "is no JSON"),
        ('{"classes": ["mass"], "training": []}', r"classes \['mass'\], the prompts of this run of"),
        ('{"classes": ["edema", "mass"], "training": [{"image": "a"}]}', "item 1 of 'training' has no name, caption"),
    ],
)
def test_another_file_is_one_line(content, message, root, tmp_path):
    if content is not None:
        (tmp_path / "d.json").write_text(content)
    with pytest.raises(BundleError, match=message) as caught:
        datalists.read_datalist(tmp_path / "d.json", root, CLASSES)
    assert "\n" not in str(caught.value)


def test_a_file_that_nobody_named_is_an_error(root):
    with pytest.raises(BundleError, match="datalist_file is not set"):
        datalists.read_datalist(None, root, CLASSES)


def test_the_fingerprint_depends_on_names_splits_and_captions_only():
    divided = {"train": named("x.png", 6), "validation": [item("x.png", 9, 9)], "test": []}
    first = datalists.fingerprint(divided)
    assert len(first) == 64
    elsewhere = {split: [{**each, "image": "/y"} for each in items[::-1]] for split, items in divided.items()}
    assert datalists.fingerprint(elsewhere) == first
    assert datalists.fingerprint(divided | {"validation": [], "test": divided["validation"]}) != first
    for key in ("name", "caption"):
        changed = [{**divided["train"][0], key: "other"}, *divided["train"][1:]]
        assert datalists.fingerprint(divided | {"train": changed}) != first


def test_a_long_list_is_packed_and_read_by_either_name(splits, root, tmp_path, monkeypatch):
    path = tmp_path / "datalist.json"
    assert datalists.write_datalist(splits, path, root, CLASSES) == path
    plain = path.read_bytes()
    monkeypatch.setattr(datalists, "PLAIN", 23)
    packed = datalists.write_datalist(splits, path, root, CLASSES)
    assert packed == tmp_path / "datalist.json.gz"
    assert [file.name for file in tmp_path.glob("datalist*")] == [packed.name], "the plain one of before is gone"
    assert gzip.decompress(packed.read_bytes()) == plain
    assert len(packed.read_bytes()) < len(plain) / 3
    for name in (path, packed):
        again = make_splits(datalists.read_datalist(name, root, CLASSES))
        assert text_of(again) == text_of(splits)
    first = packed.read_bytes()
    assert datalists.write_datalist(splits, path, root, CLASSES).read_bytes() == first
    packed.write_bytes(first[:-20])
    with pytest.raises(BundleError, match=r"datalist_file: .*cannot be read"):
        datalists.read_datalist(path, root, CLASSES)
    monkeypatch.undo()
    datalists.write_datalist(splits, path, root, CLASSES)
    assert not packed.exists()
