import logging
from pathlib import Path

import pytest

from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import siim
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "siim.json")
#: Column 2, rows 3 to 5; and columns 7 and 8, rows 0 and 1.
ROWS = "1.2.1,-1\n1.2.2,2051 3\n1.2.2, 7168 2 1022 2\n1.2.3, -1\n1.2.4,0 1\n"


def miniature(root, rows=ROWS):
    (root / "train-rle.csv").write_text("ImageId, EncodedPixels\n" + rows)  # the header has a blank, as the real one
    for number in range(1, 5):
        place = root / "dicom-images-train" / f"9.{number}" / "8.1" / f"1.2.{number}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return root


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = siim.datalist(root, prompts=PROMPTS)
    assert [item["label"] for item in items] == [[0, 1], [1, 0], [0, 1], [1, 0]]
    second = dict(items[1])
    assert Path(second.pop("image")) == root / "dicom-images-train/9.2/8.1/1.2.2.dcm"
    assert second == {
        "name": "dicom-images-train/9.2/8.1/1.2.2.dcm",
        "caption": "this is a chest x ray of a patient with pneumothorax",
        "findings": {"pneumothorax": 1.0, "no pneumothorax": 0.0},
        "label": [1.0, 0.0],
        "patient_id": pseudonym("1.2.2"),
        "study_id": pseudonym("1.2.2"),
        "split": None,
        "boxes": [[2.0, 3.0, 1.0, 3.0], [7.0, 0.0, 2.0, 2.0]],
        "box_findings": ["pneumothorax", "pneumothorax"],
    }
    assert "5 rows, 4 images, 4 items, 2 with a pneumothorax" in caplog.text


def test_repeated_rows_and_absent_images_are_counted(write, caplog):
    root = write(ROWS + "1.2.2,2051 3\n1.2.9,-1\n")
    items = siim.datalist(root, prompts=PROMPTS)
    assert len(items) == 5
    assert len(items[1]["boxes"]) == 2
    assert "1 row that repeat an earlier one passed over" in caplog.text
    assert "1 of 5 images of the table are not there: dicom-images-train/1.2.9.dcm" in caplog.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.2.9,\n", "'EncodedPixels' is empty in 1 row, the first is row 7"),
        (",-1\n", "'ImageId' is empty in 1 row"),
        ("1.2.9,7 x\n", "row 7: column 'EncodedPixels': run lengths: expected whole numbers"),
        ("1.2.9,7\n", "row 7: .*expected pairs"),
        ("1.2.9,1048570 99\n", "row 7: .*beyond the 1048576 pixels"),
        ("1.2.1,5 5\n", "2 rows whose image has both -1 and a mask, the first is row 2"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, row, words):
    with pytest.raises(BundleError, match=words):
        siim.datalist(write(ROWS + row), prompts=PROMPTS)
