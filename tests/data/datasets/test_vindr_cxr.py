import logging
from pathlib import Path

import pytest

from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import vindr_cxr
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "vindr_cxr.json")
#: As the table of the training images has them; that of the test images says "Other disease".
COLUMNS = [
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
    *("Other diseases", "No finding"),
]
READINGS = [
    ("a", "R1", ["Cardiomegaly", "Pneumonia"]), ("a", "R2", ["Cardiomegaly"]), ("a", "R3", ["No finding"]),
    ("b", "R1", ["No finding"]), ("b", "R2", ["No finding"]), ("b", "R3", ["Other diseases"]),
    ("c", "R4", ["Edema"]), ("c", "R5", ["ILD"]), ("c", "R6", ["No finding"]),
]  # fmt: skip
BOXES = """\
image_id,rad_id,class_name,x_min,y_min,x_max,y_max
a,R1,Cardiomegaly,691.5,1375,1653,1831
a,R2,Cardiomegaly,700,1380,1650,1830
a,R3,No finding,,,,
c,R4,Edema,10,20,30,60
"""


def rows(readings, reader="rad_ID", columns=COLUMNS):
    lines = [",".join(["image_id", *([reader] if reader else []), *columns])]
    for image, rad, names in readings:
        lines.append(",".join([image, *([rad] if reader else []), *(str(int(name in names)) for name in columns)]))
    return "\n".join(lines) + "\n"


TEST = rows([("d", "", ["Other disease"])], None, [name.replace("diseases", "disease") for name in COLUMNS])


def miniature(root, train=None, boxes=BOXES, test=TEST):
    (root / "annotations").mkdir(exist_ok=True)
    tables = {"image_labels_train": train or rows(READINGS), "image_labels_test": test, "annotations_train": boxes}
    for name, text in tables.items():
        if text:
            (root / "annotations" / f"{name}.csv").write_text(text)
    for path in ("train/a.dicom", "train/b.dicom", "train/c.dicom", "test/d.dicom"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    return root


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = vindr_cxr.datalist(root, prompts=PROMPTS)
    assert [item["caption"].partition("with ")[2] for item in items] == ["cardiomegaly", "no finding", "other disease"]
    first = dict(items[0])
    assert Path(first.pop("image")) == root / "train" / "a.dicom"
    assert first == {
        "name": "train/a.dicom",
        "caption": "this is a chest x ray of a patient with cardiomegaly",
        "findings": {name: float(name == "cardiomegaly") for name in vindr_cxr.FINDINGS},
        "label": [float(name == "cardiomegaly") for name in PROMPTS.classes],
        "patient_id": pseudonym("a"),
        "study_id": pseudonym("a"),
        "split": "train",
        "boxes": [[691.5, 1375.0, 961.5, 456.0], [700.0, 1380.0, 950.0, 450.0]],
        "box_findings": ["cardiomegaly", "cardiomegaly"],
    }
    assert [item["split"] for item in items] == ["train", "train", "test"]
    assert "10 readings, 4 images, 3 items with 2 boxes; left out: 1 images without a finding" in caplog.text
    assert "1 boxes of findings that are not" in caplog.text
    assert len(vindr_cxr.datalist(root, "test", prompts=PROMPTS)) == 1


def test_what_makes_a_finding_present(write):
    found = vindr_cxr.datalist(write(), "train", prompts=PROMPTS, readers="any")
    said = [item["caption"].partition("with ")[2] for item in found]
    assert said == ["cardiomegaly, pneumonia", "other disease", "ild, edema"]
    assert [len(item.get("boxes", ())) for item in found] == [2, 0, 1]
    (only,) = vindr_cxr.datalist(write(), "train", prompts=PROMPTS, readers="all")
    assert (only["name"], only["findings"]["no finding"]) == ("train/b.dicom", 1.0)


def test_empty_labels_are_unknown_and_counted(write, caplog):
    line = rows(READINGS).splitlines()[4]
    items = vindr_cxr.datalist(write(rows(READINGS).replace(line, line.replace(",R1,0,", ",R1,,"))), prompts=PROMPTS)
    assert items[1]["findings"]["aortic enlargement"] == 0.0
    alone = TEST.replace("d,0,0,", "d,,0,")
    (item,) = vindr_cxr.datalist(write(test=alone), "test", prompts=PROMPTS)
    assert "aortic enlargement" not in item["findings"]
    assert "image_labels_test.csv: 1 empty labels are unknown" in caplog.text


def test_the_table_of_the_challenge(write, tmp_path):
    root = write()
    for path in (root / "annotations").iterdir():
        path.unlink()
    head = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    (root / "train.csv").write_text(
        head + "a,Cardiomegaly,3,R1,1,2,3,4\na,Cardiomegaly,3,R1,5,6,7,9\na,Cardiomegaly,3,R2,1,2,3,5\n"
        "a,No finding,14,R3,,,,\nb,No finding,14,R1,,,,\nb,No finding,14,R2,,,,\nb,ILD,5,R3,1,1,2,2\n"
    )
    first, second = vindr_cxr.datalist(root, prompts=PROMPTS)
    assert (first["findings"]["cardiomegaly"], len(first["boxes"]), first["split"]) == (1.0, 3, None)
    assert set(first["findings"]) == {*vindr_cxr.CHALLENGE, "no finding"}
    assert second["findings"]["no finding"] == 1.0
    assert "boxes" not in second


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": rows(READINGS).replace("b,R1,0", "b,R1,2", 1)}, "'Aortic enlargement' .*'2' in row 5"),
        (
            {"train": rows(READINGS) + rows(READINGS).splitlines()[1].replace(",0", ",1") + "\n"},
            "beside a finding|repeats",
        ),
        ({"train": rows([("a", "R1", ["ILD", "No finding"])])}, "1 row with 'No finding' beside a finding"),
        ({"train": rows([("a", "R1", ["ILD"]), ("a", "R1", ["Edema"])])}, "'image_id' repeats.*image and reader"),
        ({"train": rows(READINGS, columns=COLUMNS[1:])}, "missing: aortic enlargement; unknown: none"),
        ({"train": rows(READINGS).replace("ILD", "Interstitial", 1)}, "missing: ild; unknown: Interstitial"),
        ({"boxes": BOXES.replace("c,R4", "z,R4")}, "1 row with an image that the labels do not have"),
        ({"boxes": BOXES.replace("Edema", "Oedema")}, "1 row with an unknown class_name such as 'oedema'"),
        ({"boxes": BOXES.replace("10,20,30,60", "10,20,,60")}, "1 row with a part of a box"),
        ({"boxes": BOXES.replace("10,20,30,60", "10,20,10,60")}, "1 row with a box of no area"),
        ({"boxes": BOXES.replace("10,20,30,60", ",,,")}, "1 row with a finding and no box"),
        ({"boxes": BOXES.replace("a,R3,No finding,,,,", "a,R3,No finding,1,2,3,4")}, "1 row with a box and no finding"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, given, words):
    with pytest.raises(BundleError, match=words):
        vindr_cxr.datalist(write(**given), prompts=PROMPTS)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"found no table image_labels_train\.csv or image_labels_test\.csv"):
        vindr_cxr.datalist(tmp_path, prompts=PROMPTS)
    with pytest.raises(BundleError, match="readers: expected one of majority, any, all"):
        vindr_cxr.datalist(tmp_path, prompts=PROMPTS, readers="two")
