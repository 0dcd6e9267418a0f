import logging

import pytest

from cleft_bundle.data import check_items
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import rsna
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from tests.data.radiographs import make_dicom

BASE = "this is a chest x ray of a patient with "
PROMPTS = PromptSet((BASE + "{findings}",), {name: [BASE + name] for name in ("pneumonia", "no finding")})
HEADER = "patientId,x,y,width,height,Target\n"
LABELS = HEADER + "aa,,,,,0\nbb,264.0,152.0,213.0,379.0,1\nbb,562.0,152.0,256.0,453.0,1\ncc,,,,,0\n"
CLASSES = (
    "patientId,class\naa,No Lung Opacity / Not Normal\nbb,Lung Opacity\nbb,Lung Opacity\ncc,Normal\n"  # a row a box
)


@pytest.fixture
def write(tmp_path):
    def write(labels=LABELS, classes=None):
        (tmp_path / "stage_2_train_labels.csv").write_text(labels)
        if classes:
            (tmp_path / "stage_2_detailed_class_info.csv").write_text(classes)
        folder = tmp_path / "stage_2_train_images"
        folder.mkdir(exist_ok=True)
        for name in ("aa", "bb", "cc"):
            make_dicom(folder / f"{name}.dcm", PatientSex="F", PatientAge="044Y", ViewPosition="AP")
        return tmp_path

    return write


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = rsna.datalist(root, prompts=PROMPTS)
    assert [item["caption"] for item in items] == [BASE + name for name in ("no finding", "pneumonia", "no finding")]
    assert [item["label"] for item in items] == [[0, 1], [1, 0], [0, 1]]
    assert items[1] == {
        "image": str(root / "stage_2_train_images" / "bb.dcm"),
        "name": "stage_2_train_images/bb.dcm",
        "caption": BASE + "pneumonia",
        "findings": {"pneumonia": 1.0, "no finding": 0.0, "other abnormality": 0.0},
        "label": [1.0, 0.0],
        "patient_id": pseudonym("bb"),
        "study_id": pseudonym("bb"),
        "split": None,
        "boxes": [[264.0, 152.0, 213.0, 379.0], [562.0, 152.0, 256.0, 453.0]],
        "box_findings": ["pneumonia", "pneumonia"],
    }
    assert "boxes" not in items[0]
    assert "4 rows, 3 images, 3 items: 2 no finding, 1 pneumonia; left out: 0" in caplog.text
    check_items(items, list(PROMPTS.classes))


def test_images_with_another_abnormality_are_not_called_normal(write):
    items = rsna.datalist(write(classes=CLASSES), prompts=PROMPTS)
    assert [item["caption"].removeprefix(BASE) for item in items] == ["other abnormality", "pneumonia", "no finding"]
    assert [item["label"] for item in items] == [[0, 0], [1, 0], [0, 1]]


def test_headers_on_request(write):
    prompts = PromptSet(("{view} view", "of a {sex} aged {age}", "with {findings}"), PROMPTS.classes)
    root = write()
    assert rsna.datalist(root, prompts=prompts)[0]["caption"] == "with no finding"
    first = rsna.datalist(root, prompts=prompts, headers=True)[0]
    assert first["caption"] == "AP view of a female aged 44 with no finding"
    assert (first["view"], first["sex"], first["age"]) == ("AP", "F", 44.0)


def test_a_view_guessed_from_a_description_is_in_no_caption(write):
    root = write()
    make_dicom(root / "stage_2_train_images" / "aa.dcm", SeriesDescription="CHEST PA", PatientSex="F")
    prompts = PromptSet(("{view} view", "of a {sex}"), PROMPTS.classes)
    guessed, tagged, _ = rsna.datalist(root, prompts=prompts, headers=True)
    assert (guessed["caption"], tagged["caption"]) == ("of a female", "AP view of a female")
    assert "view" not in guessed


def test_absent_and_surplus_images_are_counted(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    (root / "stage_2_train_images" / "cc.dcm").rename(root / "stage_2_train_images" / "dd.dcm")
    assert len(rsna.datalist(root, prompts=PROMPTS, headers=True)) == 3
    assert "1 of 3 images of the table are not there" in caplog.text
    assert "1 images without a row left out" in caplog.text


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("aa,1,2,3,4,0\n", "1 row with a box and Target 0, the first is row 2"),
        ("aa,,,,,1\n", "1 row with Target 1 and no box, the first is row 2"),
        ("bb,,,,,0\naa,1,2,3,4,1\naa,,,,,0\n", "2 rows whose patient has both Target 0 and 1, the first is row 3"),
        ("aa,1,2,3,4,1\naa,1,2,3,4,1\n", "1 row that repeat an earlier row, the first is row 3"),
        ("aa,1,2,,4,1\n", "1 row with a part of a box"),
        ("aa,1,2,0,4,1\n", "1 row with a box of no area"),
        ("aa,1,2,3,4,2\n", "'Target'.*'2' in row 2.*0, 1"),
        ("aa,left,2,3,4,1\n", "'x'.*'left' in row 2"),
        (",,,,,0\n", "'patientId' is empty in 1 row"),
        ("aa,,,,,\n", "'Target' is empty in 1 row"),
    ],
)
def test_contradictions_are_counted_and_their_patient_is_not_named(write, labels, words):
    with pytest.raises(BundleError, match=words) as caught:
        rsna.datalist(write(HEADER + labels), prompts=PROMPTS)
    assert "'aa'" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (CLASSES.replace("cc,Normal", "cc,Lung Opacity"), r"1 row that contradict Target.*row 5"),
        (
            CLASSES.replace("cc,Normal", "cc,Normal\ncc,No Lung Opacity / Not Normal"),
            "2 rows whose patient has several",
        ),
        (CLASSES.replace("cc,Normal", "cc,Healthy"), "'class'.*'Healthy' in row 5"),
        (CLASSES.replace("cc,Normal", "zz,Normal"), r"1 row with a patient that stage_2_train_labels\.csv does not"),
        (CLASSES.replace("cc,Normal\n", ""), r"1 of 3 patients of stage_2_train_labels\.csv have no row"),
        (CLASSES.replace("class", "klass"), "column 'class' is missing"),
    ],
)
def test_classes_that_contradict_the_boxes(write, classes, words):
    with pytest.raises(BundleError, match=words):
        rsna.datalist(write(classes=classes), prompts=PROMPTS)


def test_wrong_tables_and_arguments(write, tmp_path):
    with pytest.raises(BundleError, match=r"stage_2_train_labels\.csv: there is no such table"):
        rsna.datalist(tmp_path, prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"'Target' is missing.*columns present"):
        rsna.datalist(write(LABELS.replace("Target", "target")), prompts=PROMPTS)
    with pytest.raises(BundleError, match="names no split"):
        rsna.datalist(tmp_path, "train", prompts=PROMPTS)
    with pytest.raises(BundleError, match="class 'pneumothorax' is no finding of the RSNA challenge"):
        rsna.datalist(write(), prompts=PromptSet(("{findings}",), {"pneumothorax": ["x"]}))
