"""Bad tables and folders stop the real configs with one line, before anything is written."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.configs.conftest import TINY, bundle_error

pytestmark = pytest.mark.slow
HEADER = "image,finding,patient_id,split\n"


def rows(count=12, findings=("edema", "no finding"), patient="p{0}", split=""):
    return "".join(
        f"{number}.png,{findings[number % len(findings)]},{patient.format(number)},{split}\n" for number in range(count)
    )


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(root / f"{number}.png")
    return root


CASES = {
    "missing table": (None, r"labels\.csv: there is no such table"),
    "empty table": (HEADER, r"labels\.csv: the table is empty"),
    "missing column": (
        "picture,finding\n0.png,edema\n",
        r"column 'image' is missing.*columns present: picture, finding",
    ),
    "neither caption nor finding": ("image,label\n0.png,edema\n", r"column 'finding' is missing"),
    "missing images": (
        HEADER + "".join(f"no{number}.png,{'edema' if number % 2 else 'normal'},p{number},\n" for number in range(8)),
        r"8 of 8 images do not exist, the first: no0\.png, no1\.png, no2\.png, no3\.png, no4\.png",
    ),
    "no finding at all": (HEADER + "0.png,,p0,\n1.png,,p1,\n", r"column 'finding' is empty in every row"),
    "one class": (HEADER + rows(findings=("edema",)), r"one class only: edema|at least two classes"),
    "shared patients": (
        HEADER + rows(6, patient="p1", split="train") + rows(12, patient="p1", split="test").split("\n", 6)[6],
        r"1 patients are in more than one split.*shared_patients",
    ),
    "unknown split": (HEADER + rows(split="practice"), r"column 'split' holds an unknown value in 12 rows.*'practice'"),
    "some rows without split": (HEADER + rows(6, split="train") + "7.png,edema,p7,\n", r"column 'split' is empty"),
    "two rows per image": (HEADER + rows() + "0.png,edema,p0,\n", r"repeats an earlier value in 1 row.*0\.png"),
    "fields missing": (HEADER + rows() + "0.png,edema\n", r"row 14: expected 4 fields"),
}


@pytest.mark.parametrize(("table", "message"), CASES.values(), ids=CASES.keys())
def test_a_bad_table_is_one_line_and_nothing_is_written(table, message, folder, run_config, tmp_path):
    if table is not None:
        (folder / "labels.csv").write_text(table)
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", "data_folder.json"], "training", dataset_dir=str(folder), **TINY)
    assert re.search(message, bundle_error(caught))
    assert not (tmp_path / "models").exists()


def test_a_folder_without_a_split_column_is_divided_by_patient(folder, run_config, tmp_path):
    (folder / "labels.csv").write_text("image,finding,patient_id\n" + rows(40).replace(",\n", "\n"))
    files = ["train.json", "data_folder.json"]
    trained = run_config(files, "training", dataset_dir=str(folder), **TINY | {"batch_size": 4, "tracking_uri": ""})
    patients = [{item["patient_id"] for item in part} for part in trained.parser.get_parsed_content("splits").values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 40
    assert (tmp_path / "models" / "model.pt").is_file()


def test_no_dataset_dir_is_one_line(run_config):
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", "data_folder.json"], "training", **TINY)
    assert "dataset_dir" in bundle_error(caught)
