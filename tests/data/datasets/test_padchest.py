import csv
import logging
from pathlib import Path

import pytest

from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import padchest
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "padchest.json")
COLUMNS = ["", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
           "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "ReportID", "Report", "MethodLabel",
           "Labels", "Localizations", "LabelsLocalizationsBySentence"]  # fmt: skip


def row(image, labels, projection="PA", patient="P1", sex="F", birth="1930.0", report=" sin hallazg . cifosis sever ."):
    return ["0", f"{image}.png", "7", "20140915", f"S{patient}", patient, birth, sex, "nan", projection, "x", "No", "1",
            report, "Physician", labels, "[]", "[]"]  # fmt: skip


ROWS = [
    row("a", "['pulmonary fibrosis', ' Cardiomegaly', 'cardiomegaly', '', 'unchanged']"),
    row("b", "['normal']", "AP_horizontal", "P2", "O", "nan"),
    row("c", "['unchanged']", "AP", "P3", "nan"),
    row("d", "['normal']", "L", "P2"),
    row("e", "['pneumonia']", "COSTAL", "P4"),
    row("f", "['exclude']", "PA", "P5"),
    row("g", "nan", "PA", "P6", report="nan"),
    row("h", "['normal', 'scoliosis']", "PA", "P7"),
    row("i", "['pneumonia']", "UNK", "P8"),
    row("j", "['']", "PA", "P9"),
]


def miniature(root, rows=ROWS):
    with (root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    (root / "7").mkdir(exist_ok=True)
    for each in rows:
        (root / "7" / each[1]).touch()
    return root


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = padchest.datalist(root, prompts=PROMPTS)
    assert [item["name"] for item in items] == ["7/a.png", "7/b.png", "7/h.png"]
    first = dict(items[0])
    assert Path(first.pop("image")) == root / "7" / "a.png"
    positive = ("pulmonary fibrosis", "cardiomegaly")
    assert first == {
        "name": "7/a.png",
        "caption": "this is a chest x ray of a patient with pulmonary fibrosis, cardiomegaly",
        "findings": {name: float(name in positive) for name in PROMPTS.classes},
        "label": [float(name in positive) for name in PROMPTS.classes],
        "patient_id": pseudonym("P1"),
        "study_id": pseudonym("SP1"),
        "split": None,
        "view": "PA",
        "sex": "F",
        "age": 84.0,
    }
    assert items[1]["view"] == "AP"
    assert not {"sex", "age"} & set(items[1])
    assert items[2]["findings"]["no finding"] == 0.0
    assert (
        "10 rows, 3 items, 0 of unknown labels; left out: 1 to exclude, 2 of another or unknown projection, "
        in caplog.text
    )
    assert "1 lateral, 3 that nothing captions" in caplog.text


def test_spanish_reports_and_lateral_images_on_request(write):
    prompts = PromptSet((["{report}"], ["with {findings}"]), {**PROMPTS.classes, "scoliosis": ["s"]})
    items = {item["name"][2]: item for item in padchest.datalist(write(), prompts=prompts, frontal_only=False)}
    assert set(items) == set("abcdhj")
    assert items["a"]["captions"] == ["sin hallazg. cifosis sever.", "with pulmonary fibrosis, cardiomegaly"]
    assert items["c"]["findings"] == {}
    assert items["d"]["view"] == "LATERAL"


def test_a_class_may_be_any_label_of_the_table(write):
    prompts = PromptSet(("{findings}",), {"scoliosis": ["s"], "no finding": ["n"]})
    assert padchest.datalist(write(), prompts=prompts)[2]["label"] == [1.0, 0.0]
    with pytest.raises(BundleError, match="class 'gout' is no label of PadChest"):
        padchest.datalist(write(), prompts=PromptSet(("{findings}",), {"gout": ["s"]}))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row("z", "pneumonia"), "1 row whose Labels are no list of names"),
        (row("z", "[1]"), "1 row whose Labels are no list of names"),
        (row("z", "['normal']", "OBLIQUE"), "'Projection' .*'OBLIQUE' in row 12"),
        (row("z", "['normal']", sex="X"), "'PatientSex_DICOM' .*'X' in row 12"),
        (row("z", "['normal']", birth="old"), "'PatientBirth' .*'old' in row 12"),
        (row("a", "['normal']"), "'ImageID' repeats an earlier value in 1 row"),
        (row("z", "['normal']", patient=""), "'PatientID' is empty in 1 row"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, bad, words):
    with pytest.raises(BundleError, match=words):
        padchest.datalist(write([*ROWS, bad]), prompts=PROMPTS)
