import csv
import logging
from pathlib import Path

import pytest
from PIL import Image

from cleft_bundle.data import embed
from cleft_bundle.data.captions import PromptSet, load_prompts
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[2] / "configs" / "prompts"
DENSITY, BIRADS = (load_prompts(FOLDER / f"embed_{target}.json") for target in ("density", "birads"))
IMAGE_COLUMNS = ["empi_anon", "acc_anon", "anon_dicom_path", "FinalImageType", "ImageLateralityFinal", "ViewPosition"]
FINDING_COLUMNS = ["empi_anon", "acc_anon", "side", "asses", "tissueden", "age_at_study"]


def image(exam, side, view="CC", kind="2D", patient="P1"):
    return [patient, exam, f"images/{patient}/{exam}_{side}_{view}_{kind}.png", kind, side, view]


def finding(exam, side, letter, density="2", age="50.5", patient="P1"):
    return [patient, exam, side, letter, density, age]


def write(root, images, findings, prefix=""):
    (root / "tables").mkdir(exist_ok=True)
    for name, columns, rows in (
        ("metadata", IMAGE_COLUMNS, [[*row[:2], prefix + row[2], *row[3:]] for row in images]),
        ("clinical", FINDING_COLUMNS, findings),
    ):
        with (root / "tables" / f"EMBED_OpenData_{name}_reduced.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    for row in images:
        (root / row[2]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / row[2])


def birads_by_side(root, findings):
    write(root, [image("E1", "L"), image("E1", "R")], findings)
    return {item["laterality"]: item.get("birads") for item in embed.datalist(root, prompts=DENSITY)}


def test_item_of_a_complete_row(tmp_path):
    write(tmp_path, [image("E1", "L", "MLO")], [finding("E1", "L", "S", "3")])
    (item,) = embed.datalist(tmp_path, prompts=DENSITY)
    assert Path(item.pop("image")).is_file()
    assert item == {
        "name": "images/P1/E1_L_MLO_2D.png",
        "caption": "this is a breast 2d full field digital mammogram of a patient on the left side in the mlo view "
        "with breast tissue density 3: heterogeneously dense with birads score 4: suspicious",
        "findings": {name: float(name == "heterogeneously dense") for name in DENSITY.classes},
        "label": [0.0, 0.0, 1.0, 0.0],
        "patient_id": pseudonym("P1"),
        "study_id": pseudonym("E1"),
        "split": None,
        "laterality": "L",
        "view": "MLO",
        "density": 3,
        "birads": 4,
        "age": 50.5,
    }


def test_birads_as_target(tmp_path):
    write(tmp_path, [image("E1", "L"), image("E1", "R")], [finding("E1", "L", "A", ""), finding("E1", "R", "K")])
    items = embed.datalist(tmp_path, "birads", prompts=BIRADS)
    assert [item["label"].index(1.0) for item in items] == [0, 6]


def test_a_finding_counts_for_its_side_only(tmp_path):
    assert birads_by_side(tmp_path, [finding("E1", "L", "S"), finding("E1", "R", "N")]) == {"L": 4, "R": 1}
    assert birads_by_side(tmp_path, [finding("E1", "L", "S")]) == {"L": 4, "R": None}


@pytest.mark.parametrize("both", ["B", ""])
def test_a_finding_of_both_or_no_side_counts_for_both(tmp_path, both):
    assert birads_by_side(tmp_path, [finding("E1", both, "B"), finding("E1", "R", "M")]) == {"L": 2, "R": 5}


@pytest.mark.parametrize(
    ("milder", "worse", "category"),
    [
        ("N", "B", 2),
        ("B", "P", 3),
        ("P", "A", 0),
        ("A", "S", 4),
        ("S", "M", 5),
        ("M", "K", 6),
        ("X", "N", 1),
        ("", "N", 1),
    ],
)
def test_the_most_severe_assessment_of_a_side_counts(tmp_path, milder, worse, category):
    for pair in ((milder, worse), (worse, milder)):
        assert birads_by_side(tmp_path, [finding("E1", "L", letter) for letter in pair])["L"] == category


def test_other_image_types_and_sides_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images = [image("E1", "L"), image("E1", "L", kind="3D"), image("E1", "L", kind="cview"), image("E1", "B")]
    write(tmp_path, images, [finding("E1", "", "N")])
    assert len(embed.datalist(tmp_path, prompts=DENSITY)) == 1
    assert "4 image rows; left out: 2 of other types than 2D, 1 of no single side" in caplog.text
    assert len(embed.datalist(tmp_path, prompts=DENSITY, image_types=("2D", "cview"))) == 2


def test_exams_without_the_target_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images = [image(exam, "L") for exam in ("E1", "E2", "E3", "E4")]
    write(tmp_path, images, [finding("E1", "L", "N"), finding("E2", "L", "N", ""), finding("E3", "L", "N", "5")])
    assert [item["study_id"] for item in embed.datalist(tmp_path, prompts=DENSITY)] == [pseudonym("E1")]
    assert "1 items; left out: 3 images without a density among the classes" in caplog.text


def test_findings_of_one_exam_that_differ_in_density(tmp_path, caplog):
    write(tmp_path, [image("E1", "L")], [finding("E1", "L", "N", "2"), finding("E1", "R", "N", "3")])
    assert embed.datalist(tmp_path, prompts=DENSITY)[0]["density"] == 3
    assert "1 exams" in caplog.text


def test_paths_of_another_machine_are_found_below_the_root(tmp_path):
    images = [image("E1", "L"), image("E1", "R")]
    write(tmp_path, images, [finding("E1", "", "N")], prefix="/mnt/NAS2/mammo/")
    Path(tmp_path / images[1][2]).unlink()
    items = embed.datalist(tmp_path, prompts=DENSITY)
    assert [item["name"] for item in items] == [row[2] for row in images]
    assert [Path(item["image"]).is_file() for item in items] == [True, False]


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ([finding("E1", "L", "Z")], r"'asses'.*'Z' in row 2"),
        ([finding("E1", "Q", "N")], r"'side'.*'Q' in row 2"),
        ([finding("E1", "L", "N"), finding("E1", "L", "N", "9")], r"'tissueden'.*'9' in row 3.*1, 2, 3, 4, 5"),
    ],
)
def test_unknown_codes_are_named(tmp_path, findings, words):
    write(tmp_path, [image("E1", "L")], findings)
    with pytest.raises(BundleError, match=words):
        embed.datalist(tmp_path, prompts=DENSITY)


def test_tables_are_found_or_asked_for(tmp_path):
    with pytest.raises(BundleError, match="EMBED_OpenData_metadata"):
        embed.datalist(tmp_path, prompts=DENSITY)
    write(tmp_path, [image("E1", "L")], [finding("E1", "L", "N")])
    (tmp_path / "tables" / "EMBED_OpenData_clinical.csv").write_text("another\n1\n")
    with pytest.raises(BundleError, match="found 2"):
        embed.datalist(tmp_path, prompts=DENSITY)
    chosen = "tables/EMBED_OpenData_clinical_reduced.csv"
    assert len(embed.datalist(tmp_path, prompts=DENSITY, clinical_table=chosen)) == 1


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(BundleError, match="target='grade'"):
        embed.datalist(tmp_path, "grade", prompts=DENSITY)
    with pytest.raises(BundleError, match="no value of birads"):
        embed.datalist(tmp_path, "birads", prompts=DENSITY)
    with pytest.raises(BundleError, match="findings"):
        embed.datalist(tmp_path, prompts=PromptSet(("{findings}",), {"extremely dense": ["x"]}))
