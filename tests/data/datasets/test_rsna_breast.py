import logging
from pathlib import Path

import pandas as pd
import pytest

from cleft_bundle.data import make_splits
from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import rsna_breast
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[3] / "configs" / "prompts"
PROMPTS, DENSITY, BIRADS = (
    load_prompts(FOLDER / f"{n}.json") for n in ("rsna_breast", "vindr_density", "vindr_birads")
)
HEADER = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case\n"
)
ROWS = """\
2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False
2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False
2,10006,1864590858,R,MLO,61.0,0,0,0,,0,,29,False
1,10011,220375232,L,CC,55.0,0,0,0,0.0,0,B,21,True
1,10130,388811999,L,MLO,71.0,1,1,1,0.0,0,D,49,False
1,10130,613462606,R,LMO,,0,1,0,2,1,A,49,False
1,10150,112,R,AT,,1,1,0,1,0,C,49,False
"""


def miniature(root, rows=ROWS, header=HEADER):
    (root / "train.csv").write_text(header + rows)
    for row in rows.splitlines():
        _, patient, image, *_ = row.split(",")
        (root / "train_images" / patient).mkdir(parents=True, exist_ok=True)
        (root / "train_images" / patient / f"{image}.dcm").touch()
    return root


def test_item_of_a_complete_row(write):
    root = write()
    item = dict(rsna_breast.datalist(root, prompts=PROMPTS)[4])
    assert Path(item.pop("image")) == root / "train_images/10130/388811999.dcm"
    assert item == {
        "name": "train_images/10130/388811999.dcm",
        "caption": "this is a breast 2d full field digital mammogram of a patient on the left side in the mlo view "
        "with breast tissue density 4: extremely dense with birads score 0: additional imaging with cancer",
        "findings": {"cancer": 1.0, "no cancer": 0.0, "invasive cancer": 1.0, "biopsy": 1.0, "implant": 0.0},
        "label": [1.0, 0.0],
        "patient_id": pseudonym("10130"),
        "study_id": pseudonym("10130"),
        "split": None,
        "laterality": "L",
        "view": "MLO",
        "age": 71.0,
        "density": 4,
        "birads": 0,
    }


def test_counts_agree_with_pandas(write):
    root = write()
    table = pd.read_csv(root / "train.csv")
    items = rsna_breast.datalist(root, prompts=PROMPTS)
    assert len(items) == len(table)
    assert len({item["patient_id"] for item in items}) == table["patient_id"].nunique()
    assert sum(item["label"][0] for item in items) == table["cancer"].sum()
    assert sum("density" in item for item in items) == table["density"].notna().sum()
    assert sum(item.get("birads") == 0 for item in items) == (table["BIRADS"] == 0).sum()
    assert sum("age" in item for item in items) == table["age"].notna().sum()
    assert sum(item["findings"]["implant"] for item in items) == table["implant"].sum()
    assert len(rsna_breast.datalist(root, prompts=DENSITY, target="density")) == table["density"].notna().sum()
    prompts = PromptSet(
        ("with {birads_words}",), {name: [name] for name in ("additional imaging", "negative", "benign")}
    )
    found = rsna_breast.datalist(root, prompts=prompts, target="birads")
    assert [item["label"].index(1.0) for item in found] == [0, 0, 2, 1]


def test_empty_categories_are_unknown_and_no_density(write, caplog):
    caplog.set_level(logging.INFO)
    first = rsna_breast.datalist(write(), prompts=PROMPTS)[0]
    assert not {"density", "birads"} & set(first)
    assert first["caption"].endswith("in the cc view with no cancer")
    rsna_breast.datalist(write(), prompts=DENSITY, target="density")
    assert "7 rows, 4 items; left out: 3 without a density among the classes" in caplog.text


def test_a_partial_download_trains_on_what_is_there(write, caplog):
    root = write()
    for path in root.glob("train_images/1000*/*.dcm"):
        path.unlink()
    items = rsna_breast.datalist(root, prompts=PROMPTS)
    assert len(items) == 7
    assert "3 of 7 images of the table are not there" in caplog.text
    divided = make_splits(items, (0.5, 0.5, 0.0))
    assert sum(map(len, divided.values())) == 4
    assert "4 of 7 images, of 3 of 4 patients" in caplog.text


def test_repeated_rows_are_passed_over_and_counted(write, caplog):
    assert len(rsna_breast.datalist(write(ROWS + ROWS.splitlines()[3] + "\n"), prompts=PROMPTS)) == 7
    assert "train.csv: 1 row that repeat an earlier one passed over, the first is row 9" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("462822612,L,CC", "462822612,,CC"), "'laterality' is empty in 1 row, the first is row 2"),
        (("462822612,L,CC", "462822612,B,CC"), "'laterality' .*'B' in row 2"),
        (("462822612,L,CC", "462822612,L,XCCL"), "'view' .*'XCCL' in row 2"),
        (("61.0,0,0,0,,0,,29", "61.0,,0,0,,0,,29"), "'cancer' is empty in 1 row"),
        (("61.0,0,0,0,,0,,29", "61.0,2,0,0,,0,,29"), "'cancer' .*'2' in row 2.*one of 0, 1"),
        (("61.0,0,0,0,,0,,29", "61.0,0,1,1,,0,,29"), "1 row with an invasive cancer and no cancer"),
        (("61.0,0,0,0,,0,,29", "61.0,0,0,0,3,0,,29"), "'BIRADS' .*'3' in row 2"),
        (("61.0,0,0,0,,0,,29", "61.0,0,0,0,,0,E,29"), "'density' .*'E' in row 2"),
        (("462822612", "1459541791"), "'image_id' repeats an earlier value in 1 row"),
        (("61.0,0", "old,0"), "'age' .*'old' in row 2"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, change, words):
    with pytest.raises(BundleError, match=words) as caught:
        rsna_breast.datalist(write(ROWS.replace(*change, 1)), prompts=PROMPTS)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_are_named(write):
    with pytest.raises(BundleError, match="names no split"):
        rsna_breast.datalist(write(), "train", prompts=PROMPTS)
    with pytest.raises(BundleError, match="target: expected one of cancer, density, birads"):
        rsna_breast.datalist(write(), prompts=PROMPTS, target="age")
    with pytest.raises(BundleError, match="class 'probably benign' is no value of birads"):
        rsna_breast.datalist(write(), prompts=BIRADS, target="birads")
