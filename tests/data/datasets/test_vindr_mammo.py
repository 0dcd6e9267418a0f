import csv
import logging
from pathlib import Path

import pytest

from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import vindr_mammo
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[3] / "configs" / "prompts"
DENSITY, BIRADS = (load_prompts(FOLDER / f"vindr_{target}.json") for target in ("density", "birads"))
COLUMNS = ["study_id", "series_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads",
           "breast_density", "split"]  # fmt: skip
BOX_COLUMNS = [*COLUMNS[:-1], "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split"]


def row(study, image, side="L", view="CC", birads="BI-RADS 2", density="DENSITY C", split="training"):
    return [study, f"series {image}", image, side, view, "3518", "2800", birads, density, split]


def box(image, names="['Mass']", birads="BI-RADS 4", corners=("10.5", "20", "110.5", "70")):
    return [*image[:-1], names, birads, *corners, image[-1]]


def write(root, rows, boxes=None, columns=COLUMNS):
    for name, header, records in (("breast-level", columns, rows), ("finding", BOX_COLUMNS, boxes)):
        if records is not None:
            with (root / f"{name}_annotations.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *records])
    for study, _, image, *_ in rows:
        (root / "images" / study).mkdir(parents=True, exist_ok=True)
        (root / "images" / study / f"{image}.dicom").touch()


def test_item_of_a_complete_row(tmp_path):
    image = row("s1", "i1", "R", "MLO", "BI-RADS 4", "DENSITY D", "test")
    write(
        tmp_path, [image], [box(image, "['Mass', 'Suspicious Calcification']"), box(image, "['Skin Thickening']", "")]
    )
    (item,) = vindr_mammo.datalist(tmp_path, prompts=DENSITY)
    assert Path(item.pop("image")) == tmp_path / "images" / "s1" / "i1.dicom"
    assert item == {
        "name": "images/s1/i1.dicom",
        "caption": "this is a breast 2d full field digital mammogram of a patient on the right side in the mlo view "
        "with breast tissue density 4: extremely dense with birads score 4: suspicious",
        "findings": {name: float(name == "extremely dense") for name in DENSITY.classes}
        | {"mass": 1.0, "suspicious calcification": 1.0, "skin thickening": 1.0},
        "label": [0.0, 0.0, 0.0, 1.0],
        "patient_id": pseudonym("s1"),
        "study_id": pseudonym("s1"),
        "split": "test",
        "laterality": "R",
        "view": "MLO",
        "density": 4,
        "birads": 4,
        "boxes": [[10.5, 20.0, 100.0, 50.0]] * 3,
        "box_findings": ["mass", "suspicious calcification", "skin thickening"],
        "box_birads": [4, 4, None],
    }


def test_splits_targets_and_unknown_values(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [row("s1", "a"), row("s1", "b", "R", birads="", density="DENSITY A"), row("s2", "c", split="test")]
    write(tmp_path, [*rows, row("s3", "d", density="")])
    assert [item["split"] for item in vindr_mammo.datalist(tmp_path, prompts=DENSITY)] == ["train", "train", "test"]
    assert [item["name"] for item in vindr_mammo.datalist(tmp_path, "test", prompts=DENSITY)] == ["images/s2/c.dicom"]
    items = vindr_mammo.datalist(tmp_path, prompts=BIRADS, target="birads")
    assert [item["label"].index(1.0) for item in items] == [1, 1, 1]
    assert "4 rows, 3 items, 0 of them with boxes; left out: 0 of other splits, 1 without a birads" in caplog.text


def test_rows_without_a_finding_have_no_boxes(tmp_path):
    image = row("s1", "a")
    write(tmp_path, [image], [box(image, "['No Finding']", "", ("",) * 4)])
    (item,) = vindr_mammo.datalist(tmp_path, prompts=DENSITY)
    assert "boxes" not in item
    assert set(item["findings"]) == set(DENSITY.classes)


def test_rows_and_images_without_each_other_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, [row("s1", "a"), row("s1", "b")])
    (tmp_path / "images" / "s1" / "b.dicom").rename(tmp_path / "images" / "s1" / "z.dicom")
    assert len(vindr_mammo.datalist(tmp_path, prompts=DENSITY)) == 2
    assert "1 of 2 images of the table are not there: images/s1/b.dicom" in caplog.text
    assert "1 images without a row left out: images/s1/z.dicom" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"density": "DENSITY E"}, r"'breast_density' .*'DENSITY E' in row 3"),
        ({"birads": "BI-RADS 7"}, r"'breast_birads' .*'BI-RADS 7' in row 3"),
        ({"side": "B"}, r"'laterality' .*'B' in row 3"),
        ({"view": "XCCL"}, r"'view_position' .*'XCCL' in row 3"),
        ({"split": "holdout"}, r"'split' .*'holdout' in row 3"),
        ({"split": ""}, r"'split' is empty in 1 row, the first is row 3"),
    ],
)
def test_unknown_values_are_named(tmp_path, change, words):
    write(tmp_path, [row("s1", "a"), row("s1", "b", **change)])
    with pytest.raises(BundleError, match=words):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY)


def test_tables_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(BundleError, match="no such table"):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY)
    write(tmp_path, [row("s1", "a"), row("s1", "a")])
    with pytest.raises(BundleError, match="'image_id' repeats an earlier value in 1 row"):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY)
    write(tmp_path, [row("s1", "a")], columns=[name.replace("breast_density", "density") for name in COLUMNS])
    with pytest.raises(BundleError, match=r"'breast_density' is missing \(did you mean 'density'\?\)"):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (box(row("s1", "b")), "1 row with an image that breast-level_annotations.csv does not have"),
        (box(row("s1", "a"), "Mass"), "1 row whose finding_categories are no list of names"),
        (box(row("s1", "a"), "[1]"), "1 row whose finding_categories are no list of names"),
        (box(row("s1", "a"), corners=("1", "2", "", "4")), "1 row with a part of a box, the first is row 2"),
        (box(row("s1", "a"), corners=("5", "2", "5", "4")), "1 row with a box of no area"),
        (box(row("s1", "a"), corners=("5", "x", "6", "4")), r"'ymin' .*'x' in row 2"),
    ],
)
def test_bad_boxes_are_refused(tmp_path, bad, words):
    write(tmp_path, [row("s1", "a")], [bad])
    with pytest.raises(BundleError, match=words):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY)


def test_wrong_arguments_are_named(tmp_path):
    write(tmp_path, [row("s1", "a")])
    with pytest.raises(BundleError, match=r"split: expected one of .*, got 'validation'"):
        vindr_mammo.datalist(tmp_path, "validation", prompts=DENSITY)
    with pytest.raises(BundleError, match="target: expected one of density, birads, got 'pathology'"):
        vindr_mammo.datalist(tmp_path, prompts=DENSITY, target="pathology")
    with pytest.raises(BundleError, match="race"):
        vindr_mammo.datalist(tmp_path, prompts=PromptSet(("{race}",), {"extremely dense": ["x"]}))
