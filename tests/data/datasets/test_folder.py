import logging
import math
from pathlib import Path

import pytest
from PIL import Image

from cleft_bundle.data import splits
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import folder
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

BASE = "this is a chest x ray of a patient with "


@pytest.fixture
def root(tmp_path):
    def write(text, table="labels.csv"):
        (tmp_path / table).write_text(text)
        for name in ("a", "b", "c"):
            Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
        return tmp_path

    return write


def test_items_with_every_column(root):
    folder_path = root(
        "image,finding,split,patient_id,study_id,laterality,view,sex,age,remark\n"
        "a.png,Edema|  Pleural  Effusion,training,P1,S1,left,mlo,female,40,x\n"
        "b.png,no finding,Val,P2,,,,,,\n"
    )
    first, second = folder.datalist(folder_path)
    assert first == {
        "image": str(folder_path / "a.png"),
        "name": "a.png",
        "caption": BASE + "edema, pleural effusion",
        "findings": {"edema": 1.0, "no finding": 0.0, "pleural effusion": 1.0},
        "label": [1.0, 0.0, 1.0],
        "patient_id": pseudonym("P1"),
        "study_id": pseudonym("S1"),
        "split": "train",
        "laterality": "L",
        "view": "MLO",
        "sex": "F",
        "age": 40.0,
    }
    assert second["split"] == "validation"
    assert second["study_id"] == second["patient_id"] == pseudonym("P2")
    assert not {"laterality", "view", "sex", "age"} & set(second)


def test_classes_are_the_findings_of_the_table(root):
    prompts = folder.load_prompts(root("image,finding\na.png,Edema|fracture\nb.png,\nc.png,edema\n"))
    assert prompts.classes == {"edema": [BASE + "edema"], "fracture": [BASE + "fracture"]}
    other = folder.load_prompts(root("image,finding\na.png,Mass\n"), "a mammogram with {findings}")
    assert other.classes == {"mass": ["a mammogram with mass"]}


@pytest.mark.parametrize("template", ["a chest", "a {view}", "a {findings} and {view}"])
def test_a_template_without_findings_is_refused(root, template):
    with pytest.raises(BundleError, match="template"):
        folder.load_prompts(root("image,finding\na.png,edema\n"), template)


def test_the_table_itself_can_be_named(root):
    path = root("image,finding\na.png,edema\n", "other.csv") / "other.csv"
    assert folder.datalist(path) == folder.datalist(path.parent, "other.csv")
    assert list(folder.load_prompts(path).classes) == ["edema"]


def test_own_caption_wins_and_rows_with_nothing_are_left_out(root, caplog):
    caplog.set_level(logging.INFO)
    text = "image,caption,finding\na.png,  heart  large ,edema\nb.png,,edema\nc.png,,\n"
    items = folder.datalist(root(text))
    assert [item["caption"] for item in items] == ["heart large", BASE + "edema"]
    assert "3 rows, 2 items, 0 rows with several findings; left out: 1" in caplog.text


def test_captions_alone_have_no_classes(root):
    path = root("image,caption\na.png,clear lungs\n")
    (item,) = folder.datalist(path)
    assert (item["caption"], item["label"], item["findings"]) == ("clear lungs", [], {})
    with pytest.raises(BundleError, match="'finding' is missing"):
        folder.load_prompts(path)


def test_a_prompt_file_gives_classes_and_captions(root, caplog):
    prompts = PromptSet(("{view} view", "of {findings}"), {"fracture": ["f"], "edema": ["e"]})
    text = "image,caption,finding,view\na.png,,edema,PA\nb.png,,mass,\nc.png,own,,\n"
    items = folder.datalist(root(text), prompts=prompts)
    assert [item["caption"] for item in items] == ["pa view of edema", "of mass", "own"]
    assert [item["label"] for item in items[:2]] == [[0.0, 1.0], [0.0, 0.0]]
    assert all(math.isnan(value) for value in items[2]["label"])
    assert "1 findings are none of the classes: mass" in caplog.text


def test_without_patients_each_image_is_one(root, caplog):
    items = folder.datalist(root("image,finding\na.png,edema\nb.png,edema\n"))
    assert len({item["patient_id"] for item in items}) == 2
    assert "patient_id" in caplog.text


def test_absolute_paths(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("pacs") / "x.png"
    path = root("image,finding\n")
    (path / "labels.csv").write_text(f"image,finding\n{path / 'a.png'},edema\n{elsewhere},edema\n")
    inside, outside = folder.datalist(path)
    assert (inside["name"], inside["image"]) == ("a.png", str(path / "a.png"))
    assert outside["name"] == outside["image"] == str(elsewhere)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("img,finding\na.png,edema\n", "column 'image' is missing"),
        ("image,diagnosis\na.png,edema\n", "'caption' or 'finding'.*image"),
        ("image,finding\n,edema\n", "'image' is empty in 1 row"),
        ("image,finding\na.png,edema\na.png,mass\n", r"'a.png' in row 3.*joined by '\|'"),
        ("image,finding\na.png,\nb.png,\n", "'finding' is empty"),
        ("image,finding,split\na.png,edema,trian\n", "'split'.*'trian' in row 2"),
        ("image,finding,split\na.png,edema,train\nb.png,edema,\n", "'split' is empty in 1 row.*row 3"),
        ("image,finding,patient_id\na.png,edema,\n", "'patient_id' is empty"),
        ("image,finding,laterality\na.png,edema,up\n", "'laterality'.*'up' in row 2"),
    ],
)
def test_wrong_tables_are_named(root, text, words):
    with pytest.raises(BundleError, match=words):
        folder.datalist(root(text))


def test_an_empty_split_column_is_no_split(root):
    items = folder.datalist(root("image,finding,split\na.png,edema,\nb.png,edema,\n"))
    assert [item["split"] for item in items] == [None, None]


@pytest.mark.shared_data
def test_real_chest_radiographs(shared_data):
    root = Path(shared_data) / "data" / "cxr_kermany"
    prompts = folder.load_prompts(root)
    assert list(prompts.classes) == ["bacterial pneumonia", "no finding", "viral pneumonia"]
    items = folder.datalist(root)
    assert len(items) == 1500
    assert [sum(item["label"][place] for item in items) for place in range(3)] == [500, 500, 500]
    with pytest.raises(BundleError, match="28 patients are in more than one split"):
        splits.make_splits(items, classes=list(prompts.classes))
    divided = splits.make_splits(items, classes=list(prompts.classes), shared_patients="drop")
    assert {split: len(members) for split, members in divided.items()} == {"train": 1163, "validation": 300, "test": 0}
