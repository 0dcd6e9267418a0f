import csv
import logging
import math
from pathlib import Path

import pytest

from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import covid
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "covid.json")
COLUMNS = ["patientid", "offset", "sex", "age", "finding", "RT_PCR_positive", "survival", "view", "modality", "date",
           "location", "folder", "filename", "doi", "url", "license", "clinical_notes", "other_notes", ""]  # fmt: skip
COVID = "Pneumonia/Viral/COVID-19"


def row(name, patient, finding, view="PA", modality="X-ray", notes="", sex="M", age="65", offset="0"):
    return [patient, offset, sex, age, finding, "Y", "", view, modality, "2020", "", "images", name, "", "", "CC BY",
            notes, "", ""]  # fmt: skip


ROWS = [
    row("a.jpeg", "2", COVID, notes="On January 22, 2020,\na man.  Fever."),
    row("b.jpg", "2", COVID, "AP Supine", offset="3"),
    row("c.png", "4", "Pneumonia", "PA", sex="", age=""),
    row("d.png", "5", "No Finding", "AP"),
    row("e.png", "6", "todo", notes="Cough."),
    row("f.png", "7", COVID, "L"),
    row("g.nii.gz", "8", COVID, "Axial", "CT"),
    row("h.png", "9", "Unknown"),
    row("i.png", "10", "Pneumonia/Bacterial/Klebsiella", "Coronal"),
    row("j.png", "11", "Pneumonia/Bacterial/Klebsiella", age="0.5"),
]


def miniature(root, rows=ROWS):
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    (root / "images").mkdir(exist_ok=True)
    for each in rows:
        (root / "images" / each[12]).touch()
    return root


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = {item["name"][7]: item for item in covid.datalist(root, prompts=PROMPTS)}
    assert list(items) == list("abcdej")
    first = dict(items["a"])
    assert Path(first.pop("image")) == root / "images" / "a.jpeg"
    assert first == {
        "name": "images/a.jpeg",
        "caption": "On January 22, 2020, a man. Fever.",
        "captions": [
            "On January 22, 2020, a man. Fever.",
            "this is a chest x ray of a patient with pneumonia, viral, covid-19",
        ],
        "findings": {"covid-19": 1.0, "pneumonia": 1.0, "viral": 1.0, "bacterial": 0.0, "no finding": 0.0},
        "label": [1.0, 1.0, 0.0, 0.0],
        "patient_id": pseudonym("2"),
        "study_id": pseudonym("2/0"),
        "split": None,
        "view": "PA",
        "sex": "M",
        "age": 65.0,
    }
    assert items["b"]["view"] == "AP"
    assert items["e"]["caption"] == "Cough."
    assert (
        "10 rows, 6 items, 1 of unknown labels; left out: 1 of another modality, 1 of another view or none, "
        in caplog.text
    )
    assert "1 lateral, 1 that nothing captions" in caplog.text


def test_what_is_not_said_is_unknown(write):
    items = {item["name"][7]: item for item in covid.datalist(write(), prompts=PROMPTS, frontal_only=False)}
    assert [math.isnan(value) for value in items["c"]["label"]] == [True, False, True, False]
    assert items["c"]["label"][1] == 1.0
    assert all(map(math.isnan, items["e"]["label"]))
    assert items["j"]["label"] == [0.0, 1.0, 1.0, 0.0]
    assert items["f"]["view"] == "LATERAL"
    assert not {"sex", "age"} & set(items["c"])


def test_repeated_rows_and_absent_images_are_counted(write, caplog):
    root = write([*ROWS, ROWS[3]])
    (root / "images" / "d.png").unlink()
    assert len(covid.datalist(root, prompts=PROMPTS)) == 6
    assert "1 row that repeat an earlier one passed over" in caplog.text
    assert "1 of 7 images of the table are not there: d.png" in caplog.text


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row("a.jpeg", "3", COVID), "'filename' repeats an earlier value in 1 row"),
        (row("z.png", "", COVID), "'patientid' is empty in 1 row"),
        (row("z.png", "3", COVID, age="old"), "'age' .*'old' in row"),
        (row("z.png", "3", COVID, sex="X"), "'sex' .*'X' in row"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, bad, words):
    with pytest.raises(BundleError, match=words):
        covid.datalist(write([*ROWS, bad]), prompts=PROMPTS)


def test_a_class_must_be_a_finding(write):
    with pytest.raises(BundleError, match="class 'gout' is no finding of the collection"):
        covid.datalist(write(), prompts=PromptSet(("{findings}",), {"gout": ["s"]}))
