import logging
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cleft_bundle.data import check_items, make_splits
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import nih
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

BASE = "this is a chest x ray of a patient with "
PROMPTS = PromptSet(
    (BASE + "{findings}",),
    {name: [BASE + name] for name in ("effusion", "pleural thickening", "no finding")},
)
# one column name of the release holds a comma, so that its header has four names for two pairs
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    "00000001_000.png,Effusion|Atelectasis,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,58,M,AP,2894,2729,0.143,0.143",
    "00000002_000.png,Pleural_Thickening,0,2,81,F,PA,2500,2048,0.171,0.171",
    "00000003_000.png,Hernia,0,3,,,,2582,2991,0.143,0.143",
]


@pytest.fixture
def write(tmp_path):
    def write(rows=ROWS, header=HEADER, table="Data_Entry_2017_v2020.csv", folder="images"):
        (tmp_path / table).write_text("\n".join([header, *rows, ""]))
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for row in rows:
            if row.split(",")[0]:
                Image.new("L", (4, 4)).save(tmp_path / folder / row.split(",")[0])
        return tmp_path

    return write


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = nih.datalist(root, prompts=PROMPTS)
    assert [item["caption"] for item in items] == [
        BASE + text for text in ("atelectasis, effusion", "no finding", "pleural thickening", "hernia")
    ]
    first = items[0]
    assert first == {
        "image": str(root / "images" / "00000001_000.png"),
        "name": "images/00000001_000.png",
        "caption": BASE + "atelectasis, effusion",
        "findings": {name: float(name in ("atelectasis", "effusion")) for name in nih.FINDINGS},
        "label": [1.0, 0.0, 0.0],
        "patient_id": pseudonym("1"),
        "study_id": pseudonym("1"),
        "split": None,
        "view": "PA",
        "sex": "M",
        "age": 57.0,
    }
    assert [item["label"] for item in items[1:]] == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert not {"view", "sex", "age", "boxes", "captions"} & set(items[3])
    assert "4 rows, 4 items" in caplog.text
    check_items(items, list(PROMPTS.classes))


def test_first_release_with_its_spelling_of_ages_and_its_nameless_column(write):
    rows = [row.replace(",57,", ",057Y,").replace(",58,", ",006M,").replace(",81,", ",412Y,") + "," for row in ROWS]
    items = nih.datalist(write(rows, HEADER + ",", "Data_Entry_2017.csv"), prompts=PROMPTS)
    assert [item.get("age") for item in items] == [57.0, 0.5, None, None]


def test_images_in_the_folders_of_the_archives(write, tmp_path):
    write(ROWS[2:], folder="images_012/images")
    items = nih.datalist(write(ROWS, folder="images_001/images"), prompts=PROMPTS)
    assert [item["name"].split("/")[0] for item in items] == ["images_001"] * 4
    (tmp_path / "images_001" / "images" / "00000002_000.png").unlink()
    items = nih.datalist(tmp_path, prompts=PROMPTS)
    assert items[2]["image"] == str(tmp_path / "images_012" / "images" / "00000002_000.png")
    assert all(Path(item["image"]).is_file() for item in items)


def test_absent_and_surplus_images_are_counted(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    (root / "images" / "00000002_000.png").rename(root / "images" / "00000009_000.png")
    (root / "images" / "notes.txt").touch()
    items = nih.datalist(root, prompts=PROMPTS)
    assert len(items) == 4
    assert "1 of 4 images of the table are not there: 00000002_000.png" in caplog.text
    assert "1 images without a row left out: 00000009_000.png" in caplog.text
    with pytest.raises(BundleError, match=r"1 of 4 images do not exist, the first: images/00000002_000\.png"):
        check_items(items, list(PROMPTS.classes))


def test_official_split(write):
    root = write()
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000003_000.png")
    with pytest.raises(BundleError, match=r"expected train_val_list\.txt and test_list\.txt, or none of them"):
        nih.datalist(root, prompts=PROMPTS)
    (root / "test_list.txt").write_text("00000002_000.png\n")
    items = nih.datalist(root, prompts=PROMPTS)
    assert [item["split"] for item in items] == ["train", "train", "test", "train"]
    assert nih.datalist(root, "test", prompts=PROMPTS) == items[2:3]
    divided = make_splits(items, (0.5, 0.5, 0.0), classes=list(PROMPTS.classes))
    assert [len(divided[name]) for name in ("train", "validation", "test")] in ([2, 1, 1], [1, 2, 1])
    (root / "test_list.txt").write_text("00000002_000.png\n00000003_000.png\n")
    with pytest.raises(BundleError, match="is in the other list too"):
        nih.datalist(root, prompts=PROMPTS)
    (root / "train_val_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(BundleError, match=r"1 row with an image of neither.*row 3"):
        nih.datalist(root, prompts=PROMPTS)


def test_boxes(write):
    root = write()
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Effusion,225.5,547,86,79\n"
        "00000001_000.png,Infiltrate,1,2,3,4\n"
        "00000077_000.png,Mass,1,2,3,4\n"
    )
    items = nih.datalist(root, prompts=PROMPTS)
    assert items[0]["boxes"] == [[225.5, 547.0, 86.0, 79.0], [1.0, 2.0, 3.0, 4.0]]
    assert items[0]["box_findings"] == ["effusion", "infiltration"]
    assert all("boxes" not in item for item in items[1:])


def test_odd_boxes(write, caplog):
    root = write()
    table = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Effusion,225.5,547,86,79\n"
    path = root / "BBox_List_2017.csv"
    path.write_text(table + "00000001_000.png,Effusion,225.5,547,86,79\n00000077_000.png,Mass,1,2,3,4\n"
                    "00000001_000.png,Hernia,1,2,3,4\n")  # fmt: skip
    assert nih.datalist(root, prompts=PROMPTS)[0]["box_findings"] == ["effusion", "hernia"]
    assert "BBox_List_2017.csv: 1 row that repeat an earlier one passed over" in caplog.text
    assert "1 row of images without a row left out, the first is row 4" in caplog.text
    assert "1 row with a box of a finding that the image does not have, the first is row 5" in caplog.text
    for line, words in (
        ("00000001_000.png,Effusion,1,2,0,4\n", "1 row with a box of no area, the first is row 3"),
        ("00000001_000.png,Effusion,1,2,,4\n", "'w' is empty in 1 row"),
        ("00000001_000.png,Oedema,1,2,3,4\n", "'oedema' is no finding of ChestX-ray14"),
        (",Effusion,1,2,3,4\n", "'Image Index' is empty in 1 row"),
    ):
        path.write_text(table + line)
        with pytest.raises(BundleError, match=words):
            nih.datalist(root, prompts=PROMPTS)


def test_several_captions(write):
    prompts = PromptSet(([BASE + "{findings}"], ["{view} view", "of a {sex} aged {age}"]), PROMPTS.classes)
    items = nih.datalist(write(), prompts=prompts)
    assert items[0]["captions"] == [BASE + "atelectasis, effusion", "PA view of a male aged 57"]
    assert "captions" not in items[3]


def changed(row, **values):
    fields = ROWS[row].split(",")
    for place, value in values.items():
        fields[int(place[1:])] = value
    return [*ROWS[:row], ",".join(fields), *ROWS[row + 1 :]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (changed(1, _1="Efusion|Mass"), r"'Efusion\|Mass' in 1 row, first 3: 'efusion' is no finding.*'effusion'"),
        (changed(1, _1="No Finding|Mass"), r"first 3: 'No Finding' cannot stand beside a finding"),
        (changed(1, _1=""), "'Finding Labels' is empty in 1 row"),
        (changed(2, _3=""), "'Patient ID' is empty in 1 row, the first is row 4"),
        (changed(2, _5="X"), "'Patient Gender'.*'X' in row 4"),
        (changed(2, _6="LL"), "'View Position'.*'LL' in row 4.*pa, ap"),
        (changed(2, _4="old"), "'Patient Age'.*'old' in row 4"),
        ([*ROWS, ROWS[0]], r"repeats an earlier value in 1 row, the first is '00000001_000.png' in row 6"),
        ([*ROWS, "x.png,Mass"], r"row 6: expected 11 fields"),
    ],
)
def test_unknown_values_are_named(write, rows, words):
    with pytest.raises(BundleError, match=words):
        nih.datalist(write(rows), prompts=PROMPTS)


def test_wrong_tables_and_arguments(write, tmp_path):
    with pytest.raises(BundleError, match=r"Data_Entry_2017_v2020\.csv: there is no such table"):
        nih.datalist(tmp_path, prompts=PROMPTS)
    root = write(header=HEADER.replace("Finding Labels", "Finding_Labels"))
    with pytest.raises(BundleError, match=r"'Finding Labels' is missing.*did you mean 'Finding_Labels'"):
        nih.datalist(root, prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"split: expected one of .*, got 'validation'"):
        nih.datalist(root, "validation", prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"needs train_val_list\.txt and test_list\.txt"):
        nih.datalist(write(), "train", prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"'efusion'.*did you mean 'effusion'"):
        nih.datalist(root, prompts=PromptSet(("{findings}",), {"efusion": ["x"]}))


@pytest.mark.shared_data
def test_real_images_at_64_pixels(shared_data):
    root = shared_data / "data" / "nih64"
    items = nih.datalist(root, prompts=PROMPTS)
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv")
    assert len(items) == len(table) == 1000
    assert len({item["patient_id"] for item in items}) == table["Patient ID"].nunique()
    counts = table["Finding Labels"].str.split("|").explode().value_counts()
    for name, count in counts.items():
        assert sum(item["findings"][name.lower().replace("_", " ")] for item in items) == count
    check_items(items, list(PROMPTS.classes))
