import importlib
import json
from pathlib import Path

import pandas as pd
import pytest

from cleft_bundle.data import load_prompts
from cleft_bundle.errors import BundleError


@pytest.fixture
def external_validation(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "scripts")
    return importlib.import_module("external_validation")


@pytest.fixture
def sets(tmp_path):
    children = {
        "image": ["a.png", "b.png", "c.png"],
        "finding": ["no finding", "viral pneumonia", "bacterial pneumonia"],
    }
    children |= {"patient_id": ["a", "b", "c"], "split": ["train", "train", "valid"]}
    adults = {"image": [f"{n}.png" for n in range(9)], "patient_id": [f"0{n // 2}" for n in range(9)]}
    adults["finding"] = ["No Finding", "Edema|Pneumonia", "Edema", "Pneumonia", *["No Finding"] * 5]
    for name, table in (("young", children), ("old", adults)):
        (tmp_path / name).mkdir()
        pd.DataFrame(table).to_csv(tmp_path / name / "labels.csv", index=False)
    return [str(tmp_path / "young"), str(tmp_path / "old")]


def test_the_halves_share_no_patient_and_images_of_neither_kind_are_left_out(external_validation, sets, tmp_path):
    external_validation.tables(*sets, str(tmp_path / "out"))
    read = {path.parent.name: pd.read_csv(path, dtype=str) for path in (tmp_path / "out").glob("*/labels.csv")}
    assert read["children"]["finding"].tolist() == ["no finding", "pneumonia", "pneumonia"]
    assert read["adults"]["finding"].value_counts().to_dict() == {"no finding": 6, "pneumonia": 2}
    half = read["adults_half"].query("split == 'valid'")
    assert set(half["patient_id"]) | set(read["adults_rest"]["patient_id"]) == set(read["adults"]["patient_id"])
    assert not set(half["patient_id"]) & set(read["adults_rest"]["patient_id"])
    assert set(read["adults_half"].query("split == 'train'")["patient_id"]) == {"a", "b"}
    assert all(Path(image).parent == Path(sets[1]) for image in read["adults"]["image"])
    prompts = load_prompts(tmp_path / "out" / "prompts.json")
    assert prompts.classes["pneumonia"] == ["this is a chest x ray of a patient with pneumonia"]


def test_a_folder_without_a_table_is_one_line(external_validation, tmp_path):
    with pytest.raises(BundleError, match=r"labels\.csv does not exist"):
        external_validation.tables(str(tmp_path), str(tmp_path), str(tmp_path / "out"))


def test_figures_of_reports_stand_side_by_side(external_validation, tmp_path, capsys):
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    page = {"metrics": {"auroc/pneumonia": interval, "brier/pneumonia": interval | {"low": None}}}
    point = {"threshold": 0.1234, "sensitivity": interval, "specificity": interval}
    page["operating_points"] = {"classes": {"pneumonia": point}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(page))
    external_validation.figures(str(tmp_path / "one"), str(tmp_path / "two"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | one | two |"
    assert lines[2] == "| AUROC | 0.500 (0.250 to 0.750) | 0.500 (0.250 to 0.750) |"
    assert lines[3] == "| Brier score | 0.500 | 0.500 |"
    assert lines[4] == "| threshold | 0.123 | 0.123 |"
