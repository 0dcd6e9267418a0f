import json
import math
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from PIL import Image

from cleft_bundle.handlers.label_efficiency import LabelEfficiency, Point, label_efficiency_figure
from cleft_bundle.metrics import Interval, Predictions

ITEMS = [{"name": f"{n}", "caption": "x", "patient_id": f"{n // 2}"} for n in range(40)]
FIGURES = {
    "auroc_macro": Interval(0.8, 0.7, 0.9, 40, 20),
    "auroc/lung opacity": Interval(0.7, math.nan, math.nan, 40, 20),
}
POINT = Point("linear probe", "cleft", 0.01, 4, 2, FIGURES, {"C": 0.1, "checkpoint": "abc"})


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def comparison(tmp_path, uri="", **setting):
    common = {"evaluate_split": "test", "classes": ["a", "b"]}
    return LabelEfficiency(str(tmp_path / "eval"), uri, "test", ITEMS, common | setting, "phantoms", resamples=20)


def put(comparison, *points, run_id=None):
    with comparison.opened():
        for point in points:
            comparison.add(point, run_id)
    return json.loads(comparison.table.read_text())


def test_commands_add_points_to_one_comparison(tmp_path):
    put(comparison(tmp_path), POINT)
    better = replace(POINT, settings={"C": 1.0, "checkpoint": "abc"})
    stored = put(comparison(tmp_path), better, replace(POINT, method="fine-tuning"), replace(POINT, source="random"))
    assert [(p["method"], p["source"]) for p in stored["points"]] == [
        ("fine-tuning", "cleft"), ("linear probe", "cleft"), ("linear probe", "random")
    ]  # fmt: skip
    assert stored["points"][1]["settings"]["C"] == 1.0
    assert stored["points"][0]["figures"]["auroc/lung opacity"]["low"] is None
    assert stored["setting"]["evaluated_patients"] == 20
    assert not list(tmp_path.rglob(".writing*"))


def test_another_comparison_or_checkpoint_does_not_mix_in(tmp_path, caplog):
    put(comparison(tmp_path), POINT, replace(POINT, source="random", settings={}))
    other = replace(POINT, fraction=0.1, settings={"checkpoint": "other"})
    stored = put(comparison(tmp_path), other)
    assert [(p["source"], p["fraction"]) for p in stored["points"]] == [("cleft", 0.1), ("random", 0.01)]
    assert "1 points of cleft came from another checkpoint" in caplog.text
    stored = put(comparison(tmp_path, classes=["a", "c"]), POINT)
    assert len(stored["points"]) == 1
    assert "is of another comparison and is replaced" in caplog.text


def test_mlflow_holds_a_parent_with_table_and_picture_and_a_child_a_point(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    put(comparison(tmp_path, uri), POINT)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("test").experiment_id
    own = client.create_run(experiment, run_name="finetune_1").info.run_id
    stored = put(comparison(tmp_path, uri), replace(POINT, method="fine-tuning"), run_id=own)
    parent = stored["parent_run"]
    assert client.get_run(parent).info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(parent)} == {
        "config.json", "label_efficiency.json", "label_efficiency.png"
    }  # fmt: skip
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
    assert len(children) == 2
    assert len(client.search_runs([experiment])) == 3, "the second command goes on in the parent of the first"
    probe = next(child for child in children if child.info.run_id != own)
    assert probe.info.status == "FINISHED"
    assert {probe.data.params[f"point_{name}"] for name in ("method", "label_fraction", "C")} == {
        "linear probe", "0.01", "0.1"
    }  # fmt: skip
    shown = {"": 0.8, "_low": 0.7, "_high": 0.9}
    assert probe.data.metrics == {
        **{f"test_auroc_macro{end}": value for end, value in shown.items()},
        "test_auroc/lung opacity": 0.7,
    }


def test_a_lost_store_is_no_obstacle_and_a_crash_fails_the_parent(tmp_path):
    put(comparison(tmp_path, f"sqlite:///{tmp_path}/first.db"), POINT)
    table = tmp_path / "eval" / "label_efficiency.json"
    uri = f"sqlite:///{tmp_path}/second.db"
    table.write_text(table.read_text().replace("first.db", "second.db"))
    stored = put(comparison(tmp_path, uri), replace(POINT, fraction=0.1))
    assert len(stored["points"]) == 2
    crashing = comparison(tmp_path, uri)
    with pytest.raises(ZeroDivisionError), crashing.opened():
        raise ZeroDivisionError
    assert mlflow.MlflowClient(uri).get_run(stored["parent_run"]).info.status == "FAILED"


def test_figures_come_with_intervals_by_patient(tmp_path):
    rng = np.random.default_rng(0)
    names, patients = [item["name"] for item in ITEMS], [item["patient_id"] for item in ITEMS]
    labels = np.eye(2)[np.arange(20).repeat(2) % 2]
    predictions = Predictions(rng.random((40, 2)), labels, ["a", "b"], "multilabel", names, patients)
    point = comparison(tmp_path).measure("linear probe", "cleft", 0.1, ITEMS[:10], predictions, {})
    assert (point.train_images, point.train_patients) == (10, 5)
    figure = point.figures["auroc_macro"]
    assert figure.low < figure.value < figure.high
    assert figure.n_patients == 20


def test_the_picture_names_every_line_and_share(tmp_path):
    points = [
        replace(POINT, method=method, source=source, fraction=fraction, train_images=int(1000 * fraction))
        for method in ("linear probe", "fine-tuning")
        for source in ("cleft", "backbone", "random")
        for fraction in (0.01, 0.1, 1.0)
    ]
    figure = label_efficiency_figure(points, "phantoms, test")
    axes = figure.axes[0]
    assert len(axes.get_legend().get_texts()) == 6
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "1 %\n10 images", "10 %\n100 images", "100 %\n1000 images"
    ]  # fmt: skip
    figure.savefig(tmp_path / "figure.png")
    assert np.asarray(Image.open(tmp_path / "figure.png").convert("L")).std() > 5
