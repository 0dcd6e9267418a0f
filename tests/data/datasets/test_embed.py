import csv
import logging
from pathlib import Path

import pytest
from PIL import Image

from cleft_bundle.data import make_splits
from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import embed
from cleft_bundle.data.phantoms.breast_tables import LEGEND, LEGEND_COLUMNS
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[3] / "configs" / "prompts"
DENSITY, BIRADS, NATURAL = (load_prompts(FOLDER / f"embed_{name}.json") for name in ("density", "birads", "natural"))
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


def test_a_partial_download_trains_on_what_is_there(tmp_path, caplog):
    images = [image(f"E{number}", "L", patient=f"P{number}") for number in range(6)]
    write(tmp_path, images, [finding(f"E{number}", "L", "N", str(number % 2 + 2)) for number in range(6)])
    for number in (1, 5):
        (tmp_path / images[number][2]).unlink()
    divided = make_splits(embed.datalist(tmp_path, prompts=DENSITY), (0.5, 0.5, 0.0), classes=list(DENSITY.classes))
    assert sum(map(len, divided.values())) == 4
    assert "4 of 6 images, of 4 of 6 patients (without a split: 4 of 6); 2 images are not there" in caplog.text


def test_birads_as_target(tmp_path):
    write(tmp_path, [image("E1", "L"), image("E1", "R")], [finding("E1", "L", "A", ""), finding("E1", "R", "K")])
    items = embed.datalist(tmp_path, target="birads", prompts=BIRADS)
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
    assert len(embed.datalist(tmp_path, prompts=DENSITY, image_types="cview")) == 1


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
    (tmp_path / "tables" / "EMBED_OpenData_clinical_old.csv").write_text("another\n1\n")
    with pytest.raises(BundleError, match="found 2"):
        embed.datalist(tmp_path, prompts=DENSITY)
    chosen = "tables/EMBED_OpenData_clinical_reduced.csv"
    assert len(embed.datalist(tmp_path, prompts=DENSITY, clinical_table=chosen)) == 1


def test_the_full_table_is_read_where_a_reduced_one_lies_beside_it(tmp_path):
    write(tmp_path, [image("E1", "L")], [finding("E1", "L", "N")])
    reduced = tmp_path / "tables" / "EMBED_OpenData_clinical_reduced.csv"
    (tmp_path / "tables" / "EMBED_OpenData_clinical.csv").write_text(reduced.read_text().replace(",N,", ",S,"))
    assert embed.datalist(tmp_path, prompts=DENSITY)[0]["birads"] == 4


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(BundleError, match="split='train'"):
        embed.datalist(tmp_path, "train", prompts=DENSITY)
    with pytest.raises(BundleError, match=r"unknown_codes: expected one of .*, got 'pass'"):
        embed.datalist(tmp_path, prompts=DENSITY, unknown_codes="pass")
    with pytest.raises(BundleError, match=r"target: expected one of .*, got 'grade'"):
        embed.datalist(tmp_path, target="grade", prompts=DENSITY)
    with pytest.raises(BundleError, match="no value of birads"):
        embed.datalist(tmp_path, target="birads", prompts=DENSITY)
    for types in (None, [], "2d", ["2D", None], 5):
        with pytest.raises(BundleError, match=r"^image_types: expected .* 2D, cview, 3D, got "):
            embed.datalist(tmp_path, prompts=DENSITY, image_types=types)
    with pytest.raises(BundleError, match="findings"):
        embed.datalist(tmp_path, prompts=PromptSet(("{findings}",), {"extremely dense": ["x"]}))


def write_wide(root, images, findings, legend=LEGEND):
    """Tables of which only some rows have some columns, and the legend with EMBED's padding."""
    (root / "tables").mkdir(exist_ok=True)
    base = [dict(zip(IMAGE_COLUMNS, image(*row["image"]), strict=True)) | row for row in images]
    for row in base:
        row.pop("image")
    for name, rows in (("metadata", base), ("clinical", findings)):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (root / "tables" / f"EMBED_OpenData_{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    if legend:
        with (root / "tables" / "AWS_Open_Data_Clinical_Legend.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [LEGEND_COLUMNS, *([*row[:2], f"{row[2]:<6}", f"{row[3]:<60}"] for row in legend)]
            )


def described(side, letter, **codes):
    return {"acc_anon": "E1", "side": side, "asses": letter, "tissueden": "2.0", **codes}


def wide_item(root, *findings, prompts=DENSITY, legend=LEGEND, **details):
    write_wide(root, [{"image": ("E1", "L"), **details}], findings, legend)
    return embed.datalist(root, prompts=prompts, target="birads" if prompts is NATURAL else "density")[0]


def test_a_natural_caption_of_a_complete_row(tmp_path):
    item = wide_item(
        tmp_path,
        described("L", "S", massshape="X", massmargin="S", massdens="+", calcfind="A,I", calcdistri="G",
                  age_at_study="57.9", RACE_DESC="African American  or Black",
                  ETHNIC_GROUP_DESC="Non-Hispanic or Latino", path_severity="1.0"),
        prompts=NATURAL, StudyDescription="MG Screening Bilateral", Manufacturer="HOLOGIC, Inc.",
    )  # fmt: skip
    assert item["caption"] == (
        "The reason for this exam is screening. "
        "The patient is african american or black, non-hispanic or latino and 57 years old. "
        "This is a 2d full field digital mammogram of the left breast in the cc view. "
        "The breast composition is density 2: scattered fibroglandular densities. "
        "There is a mass with irregular shape, spiculated margin and high density. "
        "There are amorphous and fine pleomorphic calcifications with grouped distribution. "
        "The impression is BI-RADS category 4: suspicious."
    )
    assert {name: value for name, value in item["findings"].items() if value} == {
        "suspicious": 1.0,
        "mass shape: irregular": 1.0,
        "mass margin: spiculated": 1.0,
        "mass density: high": 1.0,
        "calcification type: amorphous and fine pleomorphic": 1.0,
        "calcification distribution: grouped": 1.0,
    }
    known = ("age", "race", "ethnicity", "reason", "manufacturer", "path_severity")
    assert [item[key] for key in known] == [
        57.9, "african american or black", "non-hispanic or latino", "screening", "Hologic", 1
    ]  # fmt: skip


def test_the_caption_takes_a_mass_of_one_finding_and_gathers_the_others(tmp_path):
    item = wide_item(
        tmp_path,
        described("L", "B", massshape="R", massmargin="D", calcfind="P"),
        described("L", "M"),
        described("", "S", massshape="X"),
        described("R", "K", massshape="O", calcfind="F"),
        prompts=NATURAL,
    )
    assert "There is a mass with irregular shape. There are punctate calcifications. The impression" in item["caption"]
    assert item["caption"].endswith("category 5: highly suggestive of malignancy.")
    assert {name for name in item["findings"] if ":" in name} == {
        "mass shape: irregular", "mass shape: round", "mass margin: circumscribed", "calcification type: punctate"
    }  # fmt: skip


def test_without_a_legend_the_codes_stay_out_and_one_line_says_so(tmp_path, caplog):
    item = wide_item(tmp_path, described("L", "S", massshape="X"), prompts=NATURAL, legend=None)
    assert "mass" not in item["caption"]
    assert [name for name in item["findings"] if ":" in name] == []
    assert caplog.text.count("AWS_Open_Data_Clinical_Legend.csv") == 1


def test_a_code_without_a_legend_entry(tmp_path, caplog):
    rows = [
        described("L", "S", massshape="X"),
        described("L", "S", massshape="X,D"),
        described("L", "N", massshape="D"),
    ]
    with pytest.raises(
        BundleError, match=r"clinical.csv: column 'massshape' .* in 2 rows, the first is 'X,D' in row 3"
    ):
        wide_item(tmp_path, *rows)
    (item,) = embed.datalist(tmp_path, prompts=DENSITY, unknown_codes="skip")
    assert "mass shape: irregular" in item["findings"]
    assert "in 2 rows, the first is 'X,D' in row 3; the legend has R, O, X, F; passed over" in caplog.text


def test_a_legend_that_contradicts_itself(tmp_path):
    twice = [*LEGEND, ("massshape", "Mass shape", "R", "Rectangular")]
    with pytest.raises(BundleError, match="code 'R' of 'massshape' has another meaning in an earlier row"):
        wide_item(tmp_path, described("L", "S", massshape="R"), legend=twice)


@pytest.mark.parametrize(
    "words",
    ["Unknown, Unavailable or Unreported", "Not Recorded", "Patient Declines", "Other", "N/A", "unreported", ""],
)
def test_words_that_say_nothing_give_no_value(tmp_path, words):
    item = wide_item(tmp_path, described("L", "S", RACE_DESC=words, ETHNIC_GROUP_DESC=words), prompts=NATURAL)
    assert "race" not in item
    assert "The patient" not in item["caption"]


def test_the_full_table_calls_the_race_by_another_name(tmp_path):
    item = wide_item(tmp_path, described("L", "S", ETHNICITY_DESC="Native Hawaiian or Other Pacific Islander"))
    assert item["race"] == "native hawaiian or other pacific islander"


def test_pathology_is_that_of_the_biopsied_side(tmp_path):
    findings = [described("B", "S", path_severity="4", bside="R"), described("L", "S", path_severity="2")]
    write_wide(
        tmp_path, [{"image": ("E1", side)} for side in "LR"], [*findings, described("L", "S", path_severity="6")]
    )
    items = embed.datalist(tmp_path, prompts=DENSITY)
    assert {item["laterality"]: item["path_severity"] for item in items} == {"L": 2, "R": 4}


def test_a_male_breast_tells_the_sex(tmp_path):
    prompts = PromptSet(("{density_words}",), {"normal male": ["x"]})
    item = wide_item(tmp_path, described("L", "N") | {"tissueden": "5"}, prompts=prompts)
    assert (item["sex"], item["density"]) == ("M", 5)


def test_spot_views_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images = [{"image": ("E1", side), "spot_mag": spot} for side, spot in (("L", "1.0"), ("R", ""))]
    write_wide(tmp_path, images, [described("", "N")])
    assert [item["laterality"] for item in embed.datalist(tmp_path, prompts=DENSITY)] == ["R"]
    assert "1 spot or magnification views" in caplog.text
    assert len(embed.datalist(tmp_path, prompts=DENSITY, spot_views=True)) == 2


def test_images_and_rows_without_each_other_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images = [image("E1", "L"), image("E1", "R"), image("E2", "L"), image("E1", "L", "MLO", "3D")]
    write(tmp_path, images, [finding("E1", "", "N"), finding("E3", "L", "N")])
    (tmp_path / images[1][2]).rename(tmp_path / "images" / "P1" / "another.png")
    assert len(embed.datalist(tmp_path, prompts=DENSITY)) == 2
    assert "1 of 2 images of the table are not there: images/P1/E1_R_CC_2D.png" in caplog.text
    assert "1 images without a row left out: images/P1/another.png" in caplog.text
    assert "(1 of them of exams without a row)" in caplog.text
    assert "1 exams without an image" in caplog.text


def test_tables_of_different_exams_are_refused(tmp_path):
    write(tmp_path, [image("E1", "L")], [finding("E1.0", "L", "N")])
    with pytest.raises(BundleError, match="shares no exam with the 1 images"):
        embed.datalist(tmp_path, prompts=DENSITY)


def test_two_rows_of_one_image_are_refused(tmp_path):
    write(tmp_path, [image("E1", "L"), image("E1", "L")], [finding("E1", "L", "N")])
    with pytest.raises(BundleError, match="'anon_dicom_path' repeats an earlier value in 1 row"):
        embed.datalist(tmp_path, prompts=DENSITY)
