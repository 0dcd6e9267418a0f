import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cleft_bundle.data import load_prompts
from cleft_bundle.errors import BundleError
from cleft_bundle.reports.evaluation import Comparison, Resampling, ScoredImages, Settings, write_report


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


@pytest.fixture
def write_page(tmp_path):
    """Write the report of 60 images of 30 patients in two views, three in four of them told apart."""

    def write(name, task):
        rng = np.random.default_rng(0)
        truth = np.arange(60) % 2
        logits = np.where(rng.random(60) < 0.75, 1.0, -1.0) * (2 * truth - 1) + 0.1 * rng.normal(size=60)
        scores = np.column_stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))])
        names = ["no finding", "pneumonia"]
        items = [{"name": str(n), "patient_id": str(n // 2), "view": ("AP", "PA")[n // 2 % 2]} for n in range(60)]
        scored = ScoredImages(names, task, scores, np.eye(2)[truth], items, thresholds={"pneumonia": 0.5},
                              calibration={"method": "temperature", "temperature": 0.719})  # fmt: skip
        dataset = {"name": name, "split": "test", "fingerprint": None, "phantoms": False}
        settings = Settings(Resampling(20))
        write_report(scored, tmp_path / name, dataset, Comparison(name, [], items, names), settings)
        return str(tmp_path / name)

    return write


def test_figures_of_real_reports_of_both_tasks_stand_side_by_side(external_validation, write_page, capsys):
    folders = [write_page("one", "multiclass"), write_page("two", "multilabel")]
    external_validation.figures(*folders)
    header, _, *lines = (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    assert header == ["one", "two"]
    printed = {name: cells for name, *cells in lines}
    assert all(len(cells) == 2 for cells in printed.values())
    pages = [json.loads((Path(folder) / "report.json").read_text()) for folder in folders]
    briers = [page["metrics"][key]["value"] for page, key in zip(pages, ("brier", "brier/pneumonia"), strict=True)]
    assert [cell.split(" ")[0] for cell in printed["Brier score"]] == [f"{value:.3f}" for value in briers]
    assert briers[0] == pytest.approx(2 * briers[1])
    assert printed["images, patients"] == ["60, 30", "60, 30"]
    assert printed["temperature"] == ["0.719", "0.719"]
    point = pages[0]["operating_points"]["classes"]["pneumonia"]
    assert printed["called, of those with and without it"][0] == f"{point['tp']} of 30, {point['fp']} of 30"
    assert {"AUROC, view: AP", "AUROC, view: PA"} <= printed.keys()


def test_a_folder_without_a_report_is_one_line(external_validation, tmp_path):
    with pytest.raises(BundleError, match=r"report\.json does not exist: cleft report writes it"):
        external_validation.figures(str(tmp_path))
