import csv
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import chexpert
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "chexpert.json")
COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *chexpert.FINDINGS]
BASE = "this is a chest x ray of a patient with "


def row(path, side="Frontal", **values):
    names = {name.lower().replace(" ", "_"): name for name in chexpert.FINDINGS}
    known = {names.get(key, key): value for key, value in values.items()}
    return {"Path": path, "Sex": "Female", "Age": "61", "Frontal/Lateral": side, "AP/PA": "AP", **known}


def write(root, rows, table="train.csv", columns=COLUMNS, prefix="CheXpert-v1.0-small/"):
    with (root / table).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**each, "Path": prefix + each["Path"]} for each in rows)
    for each in rows:
        place = root / each["Path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(place)


ROWS = [
    row("train/patient00001/study1/view1_frontal.jpg", pleural_effusion="1.0", edema="1.0", pneumothorax="0.0"),
    row("train/patient00001/study2/view1_frontal.jpg", no_finding="1.0", Sex="Unknown", Age=""),
    row("train/patient00002/study1/view1_frontal.jpg", cardiomegaly="1.0", edema="-1.0", Sex="Male"),
    row("train/patient00002/study1/view2_lateral.jpg", "Lateral", cardiomegaly="1.0", **{"AP/PA": ""}),
    row("train/patient00003/study1/view1_frontal.jpg", edema="-1.0", pneumothorax="0.0"),
]


@pytest.fixture
def root(tmp_path):
    write(tmp_path, ROWS)
    return tmp_path


def test_items_of_a_miniature(root, caplog):
    caplog.set_level(logging.INFO)
    items = chexpert.datalist(root, prompts=PROMPTS)
    assert [item["caption"] for item in items] == [
        BASE + "edema, pleural effusion",
        BASE + "no finding",
        BASE + "cardiomegaly",
    ]
    assert "5 rows, 3 items; left out: 1 lateral, 1 without a positive finding" in caplog.text
    assert "patient0000" not in caplog.text
    first = items[0]
    assert Path(first["image"]).is_file()
    assert first["name"] == "train/patient00001/study1/view1_frontal.jpg"
    assert dict(zip(PROMPTS.classes, first["label"], strict=True)) == {
        name: float(name in ("edema", "pleural effusion")) for name in PROMPTS.classes
    }
    assert first["findings"]["lung opacity"] == 0.0
    assert (first["split"], first["view"], first["sex"], first["age"]) == ("train", "AP", "F", 61.0)
    assert first["patient_id"] == items[1]["patient_id"] == pseudonym("patient00001")
    assert first["study_id"] != items[1]["study_id"]
    assert "sex" not in items[1]
    assert "age" not in items[1]
    assert items[2]["sex"] == "M"


def test_studies_of_one_number_and_different_patients_differ(root):
    studies = {(item["patient_id"], item["study_id"]) for item in chexpert.datalist(root, prompts=PROMPTS)}
    assert len({study for _, study in studies}) == len(studies) == 3


@pytest.mark.parametrize(
    ("uncertain", "value", "caption"),
    [("ignore", None, "cardiomegaly"), ("zero", 0.0, "cardiomegaly"), ("one", 1.0, "cardiomegaly, edema")],
)
def test_uncertain_findings(root, uncertain, value, caption):
    item = next(
        item
        for item in chexpert.datalist(root, prompts=PROMPTS, uncertain=uncertain)
        if item["patient_id"] == pseudonym("patient00002")
    )
    assert item["findings"].get("edema") == value
    label = item["label"][list(PROMPTS.classes).index("edema")]
    assert math.isnan(label) if value is None else label == value
    assert item["caption"] == BASE + caption


def test_separate_uncertain_findings_are_findings_of_their_own(root):
    classes = {name: [name] for name in ("edema", "uncertain edema", "cardiomegaly")}
    prompts = PromptSet((BASE + "{findings}",), classes)
    items = chexpert.datalist(root, prompts=prompts, uncertain="separate")
    assert [item["caption"].removeprefix(BASE) for item in items] == [
        "edema, pleural effusion",
        "no finding",
        "cardiomegaly, uncertain edema",
        "uncertain edema",
    ]
    np.testing.assert_equal([item["label"] for item in items], [[1, 0, 0], [0, 0, 0], [np.nan, 1, 1], [np.nan, 1, 0]])
    assert "edema" not in items[2]["findings"]
    assert items[2]["findings"]["uncertain edema"] == 1.0
    assert not any(name.startswith("uncertain") for name in items[0]["findings"])
    with pytest.raises(BundleError, match="class 'uncertain edema' is no finding"):
        chexpert.datalist(root, prompts=prompts)


def test_patients_without_a_folder_and_folders_without_a_row_are_counted(root, caplog):
    caplog.set_level(logging.INFO)
    (root / "train" / "patient00009").mkdir()
    (root / "train" / "patient00003").rename(root / "train" / "patient00008")
    chexpert.datalist(root, prompts=PROMPTS)
    assert "1 of 3 patients of the table have no folder in" in caplog.text
    assert "2 folders of patients without a row left out" in caplog.text
    assert "patient0000" not in caplog.text


def test_lateral_images_on_request(root):
    items = chexpert.datalist(root, prompts=PROMPTS, frontal_only=False)
    assert [item["view"] for item in items] == ["AP", "AP", "AP", "LATERAL"]


def test_order_of_columns_does_not_matter(root, tmp_path):
    expected = chexpert.datalist(root, prompts=PROMPTS)
    write(tmp_path, ROWS, columns=COLUMNS[::-1])
    assert chexpert.datalist(tmp_path, prompts=PROMPTS) == expected


def test_both_tables_and_one_split(root):
    write(root, [row("valid/patient64541/study1/view1_frontal.jpg", edema="1.0")], "valid.csv")
    items = chexpert.datalist(root, prompts=PROMPTS)
    assert [item["split"] for item in items] == ["train"] * 3 + ["validation"]
    assert chexpert.datalist(root, "validation", prompts=PROMPTS) == items[3:]


def test_images_below_the_folder_that_the_table_names(tmp_path):
    inner = tmp_path / "CheXpert-v1.0-small"
    inner.mkdir()
    write(inner, ROWS)
    (inner / "train.csv").rename(tmp_path / "train.csv")
    items = chexpert.datalist(tmp_path, prompts=PROMPTS)
    assert all(Path(item["image"]).is_file() for item in items)
    assert items[0]["name"] == "train/patient00001/study1/view1_frontal.jpg"


def test_captions_can_name_view_sex_and_age(root):
    prompts = PromptSet(("{view} view", "of a {sex}", "aged {age}", "with {findings}"), {"edema": ["edema"]})
    items = chexpert.datalist(root, prompts=prompts)
    assert items[0]["caption"] == "AP view of a female aged 61 with edema, pleural effusion"
    assert items[1]["caption"] == "AP view with no finding"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edema": "2"}, r"'Edema'.*'2' in row 2.*-1, 0, 1"),
        ({"Frontal/Lateral": "Oblique"}, r"'Frontal/Lateral'.*'Oblique' in row 2"),
        ({"Age": "old"}, r"'Age'.*'old' in row 2"),
        ({"Sex": "7"}, r"'Sex'.*'7' in row 2"),
    ],
)
def test_unknown_values_are_named(tmp_path, change, words):
    write(
        tmp_path, [{**row("train/patient00001/study1/view1_frontal.jpg", no_finding="1"), **row("x/y/z.jpg", **change)}]
    )
    with pytest.raises(BundleError, match=words):
        chexpert.datalist(tmp_path, prompts=PROMPTS)


def test_wrong_tables_and_arguments(tmp_path):
    with pytest.raises(BundleError, match=r"train\.csv"):
        chexpert.datalist(tmp_path, prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"split: expected one of .*, got 'valid'"):
        chexpert.datalist(tmp_path, "valid", prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"uncertain: expected one of .*, got 'maybe'"):
        chexpert.datalist(tmp_path, prompts=PROMPTS, uncertain="maybe")
    with pytest.raises(BundleError, match=r"'oedema'.*did you mean 'edema'"):
        chexpert.datalist(tmp_path, prompts=PromptSet(("{findings}",), {"oedema": ["x"]}))
    write(tmp_path, ROWS, columns=[name for name in COLUMNS if name != "Edema"])
    with pytest.raises(BundleError, match="column 'Edema' is missing"):
        chexpert.datalist(tmp_path, prompts=PROMPTS)
    write(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(BundleError, match=r"repeats.*row 3"):
        chexpert.datalist(tmp_path, prompts=PROMPTS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            {**row("flat.jpg", edema="1"), "Path": "flat.jpg"},
            r"row 2: column 'Path' holds no '<patient>/<study>/<image>'",
        ),
        (row("a/b/c.jpg", side="", edema="1"), r"'Frontal/Lateral' is empty in 1 row, the first is row 2"),
        (row("", edema="1"), r"'Path' is empty in 1 row"),
    ],
)
def test_rows_without_a_place_or_a_side_are_named(tmp_path, line, words):
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(line)
    with pytest.raises(BundleError, match=words):
        chexpert.datalist(tmp_path, prompts=PROMPTS)


BLINDED = ["Path", *sorted(chexpert.FINDINGS)]


def test_published_test_labels_have_the_side_in_the_path(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, [row("test/patient64741/study1/view1_frontal.jpg", edema="1"),
                     row("test/patient64741/study1/view2_lateral.jpg", edema="1"),
                     row("test/patient64742/study1/view1_frontal.jpg", no_finding="1")],
          "test_labels.csv", BLINDED, "")  # fmt: skip
    items = chexpert.datalist(tmp_path, prompts=PROMPTS)
    assert [item["name"] for item in items] == [f"test/patient6474{n}/study1/view1_frontal.jpg" for n in (1, 2)]
    assert {item["split"] for item in items} == {"test"}
    assert not any({"view", "sex", "age"} & set(item) for item in items)
    both = chexpert.datalist(tmp_path, prompts=PROMPTS, frontal_only=False)
    assert [item.get("view") for item in both] == [None, "LATERAL", None]
    assert all(Path(item["image"]).is_file() for item in both)
    assert "3 rows, 2 items; left out: 1 lateral" in caplog.text
    write(tmp_path, [row("test/patient64741/study1/view1.jpg", edema="1")], "test.csv", BLINDED, "")
    with pytest.raises(BundleError, match=r"test\.csv: 1 row whose path says neither frontal nor lateral.*row 2"):
        chexpert.datalist(tmp_path, prompts=PROMPTS)


def test_chexlocalize_calls_the_folder_of_validation_val(tmp_path):
    write(tmp_path, [row("valid/patient64541/study1/view1_frontal.jpg", edema="1")], "val_labels.csv")
    (tmp_path / "valid").rename(tmp_path / "val")
    (item,) = chexpert.datalist(tmp_path, prompts=PROMPTS)
    assert (item["name"], item["split"]) == ("val/patient64541/study1/view1_frontal.jpg", "validation")
    assert Path(item["image"]).is_file()
