import logging
import sys
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import cmmd
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from tests.data.radiographs import make_dicom

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "cmmd.json")
TABLE = """\
ID1,LeftRight,Age,number,abnormality,classification,subtype
D1-0001,R,44,2,calcification,Benign,
D1-0002,L,40,2,calcification,Benign,
D1-0003,L,39,2,Mass,Benign,
D1-0004,R,49,2,,,
D2-0005,L,64,2,both,Malignant,Luminal B
D2-0005,R,64,2,mass,Malignant,HER2-enriched
"""
CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}


def image(path, patient, side, view):
    """As the set has them: the side in a tag, the view as a code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = {"PatientID": patient, "Modality": "MG", "ImageLaterality": side}
    make_dicom(path, **{name: value for name, value in tags.items() if value})
    ds = pydicom.dcmread(path)
    code = pydicom.Dataset()
    code.CodeValue, code.CodeMeaning = CODES[view]
    code.CodingSchemeDesignator = "SCT"
    ds.ViewCodeSequence = [code]
    ds.save_as(path)


def miniature(root, table=TABLE):
    (root / "CMMD_clinicaldata_revision.csv").write_text(table)
    for patient, sides in (("D1-0001", "RL"), ("D1-0002", "L"), ("D1-0004", "R"), ("D2-0005", "LR")):
        for side in sides:
            for number, view in enumerate(CODES, start=1):
                name = f"{number + 2 * (side == 'R')}"
                image(root / "CMMD" / patient / "07-18-2010-NA" / "1.000" / f"1-{name}.dcm", patient, side, view)
    return root


def test_item_of_a_cancer(write):
    root = write()
    item = dict(cmmd.datalist(root, prompts=PROMPTS)[4])
    name = "CMMD/D2-0005/07-18-2010-NA/1.000/1-1.dcm"
    assert Path(item.pop("image")) == root / name
    assert item == {
        "name": name,
        "caption": "this is a breast 2d full field digital mammogram of a patient on the left side in the cc view "
        "with mass, calcification with malignant pathology of subtype luminal b",
        "findings": {"benign": 0.0, "malignant": 1.0, "mass": 1.0, "calcification": 1.0, "subtype: luminal b": 1.0},
        "label": [0.0, 1.0],
        "patient_id": pseudonym("D2-0005"),
        "study_id": pseudonym("D2-0005"),
        "split": None,
        "laterality": "L",
        "view": "CC",
        "age": 64.0,
        "pathology": "malignant",
    }


def test_counts_agree_with_pandas_and_what_is_left_out_is_counted(write, caplog):
    caplog.set_level(logging.INFO)
    items = cmmd.datalist(write(), prompts=PROMPTS)
    table = pd.read_csv(write() / "CMMD_clinicaldata_revision.csv").dropna(subset="classification")
    there = table[table["ID1"] != "D1-0003"]
    assert len(items) == there["number"].sum()
    assert sum(item["label"][1] for item in items) == there.loc[there["classification"] == "Malignant", "number"].sum()
    assert sum(item["findings"]["calcification"] for item in items) == 6
    assert "2 images of the table's breasts are not there" in caplog.text
    assert "6 breasts, 8 items; left out: 2 of a breast without a row, 2 of a pathology that is unknown" in caplog.text


def test_images_of_no_known_side_or_patient_and_other_files(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    image(root / "CMMD" / "D1-0003" / "1-1.dcm", "", "L", "CC")
    image(root / "CMMD" / "D1-0003" / "1-2.dcm", "D1-0003", "", "CC")
    image(root / "CMMD" / "elsewhere" / "1-2.dcm", "", "L", "CC")
    (root / "CMMD" / "LICENSE").write_text("CC BY 4.0")
    items = cmmd.datalist(root, prompts=PROMPTS)
    assert len(items) == 9
    assert sum(item["patient_id"] == pseudonym("D1-0003") for item in items) == 1
    assert "1 files that are no DICOM image" in caplog.text
    assert "2 of no known patient or side" in caplog.text


def test_several_rows_of_a_breast_are_put_together(write, caplog):
    table = TABLE + "D1-0002,L,40,2,mass,Malignant,\nD1-0001,R,44,2,calcification,Benign,\n"
    items = cmmd.datalist(write(table), prompts=PROMPTS)
    (found,) = {
        item["caption"] for item in items if item["patient_id"] == pseudonym("D1-0002") and item["view"] == "CC"
    }
    assert found.endswith("with mass, calcification with malignant pathology")
    assert "1 row more than breasts" in caplog.text
    assert "1 row that repeat an earlier one passed over" in caplog.text


def test_semicolons_and_the_workbook_as_it_comes(write, monkeypatch):
    root = write(TABLE.replace(",", ";"))
    expected = cmmd.datalist(root, prompts=PROMPTS)
    table = root / "CMMD_clinicaldata_revision.csv"
    openpyxl = pytest.importorskip("openpyxl", reason="needs pip install 'cleft_bundle[xlsx]'")
    book = openpyxl.Workbook()
    for line in TABLE.splitlines():
        book.active.append([int(value) if value.isdigit() else value or None for value in line.split(",")])
    book.save(table.with_suffix(".xlsx"))
    table.unlink()
    assert cmmd.datalist(root, prompts=PROMPTS) == expected
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BundleError, match=r"openpyxl.*cleft_bundle\[xlsx\].*or save the sheet as a CSV file beside it"):
        cmmd.datalist(root, prompts=PROMPTS)


def test_a_workbook_that_is_none(write):
    root = write()
    (root / "CMMD_clinicaldata_revision.csv").rename(root / "CMMD_clinicaldata_revision.xlsx")
    with pytest.raises(BundleError, match=r"not a readable workbook|cleft_bundle\[xlsx\]"):
        cmmd.datalist(root, prompts=PROMPTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("D1-0001,R", "D1-0001,B"), "'LeftRight' .*'B' in row 2"),
        (("D1-0001,R", "D1-0001,"), "'LeftRight' is empty in 1 row"),
        (("calcification,Benign", "calcification,Normal"), "'classification' .*'Normal' in row 2"),
        (("calcification,Benign", "asymmetry,Benign"), "'abnormality' .*'asymmetry' in row 2"),
        (("Luminal B", "Luminal C"), "'subtype' .*'Luminal C' in row 6"),
        ((",44,", ",old,"), "'Age' .*'old' in row 2"),
        (("classification", "class"), "column 'classification' is missing"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, change, words):
    with pytest.raises(BundleError, match=words):
        cmmd.datalist(write(TABLE.replace(*change, 1)), prompts=PROMPTS)
