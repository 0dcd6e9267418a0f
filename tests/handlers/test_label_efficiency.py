import json
import math
from dataclasses import replace

import mlflow
import numpy as np
import pytest
from PIL import Image

from cleft_bundle.handlers.label_efficiency import LabelEfficiency
from cleft_bundle.handlers.label_points import Point, label_efficiency_figure, over_seeds, point_name
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


def of_seed(seed, value, **changes):
    estimates = {"auroc_macro": Interval(value, value - 0.1, value + 0.1, 40, 20)}
    return replace(POINT, estimates=estimates, seeds={"seed": seed, "subset_seed": 0, "split_seed": 0}, **changes)


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
    assert stored["points"][0]["estimates"]["auroc/lung opacity"]["low"] is None
    assert stored["setting"]["evaluated_patients"] == 20
    assert not list(tmp_path.rglob(".writing*"))


def test_points_of_other_seeds_and_checkpoints_stay_and_the_same_is_replaced(tmp_path):
    put(comparison(tmp_path), of_seed(0, 0.7), of_seed(1, 0.8))
    stored = put(comparison(tmp_path), of_seed(1, 0.9), of_seed(0, 0.6, settings={"checkpoint": "other"}))
    assert [(p["settings"]["checkpoint"], p["seeds"]["seed"], p["estimates"]["auroc_macro"]["value"]) for p in
            stored["points"]] == [("abc", 0, 0.7), ("abc", 1, 0.9), ("other", 0, 0.6)]  # fmt: skip
    gathered = [(row["checkpoint"], row["seeds"], row["estimates"]["auroc_macro"]) for row in stored["over_seeds"]]
    both = {"mean": 0.8, "sd": pytest.approx(np.std([0.7, 0.9], ddof=1)), "low": 0.7, "high": 0.9, "seeds": 2}
    assert gathered == [
        ("abc", 2, both | {"mean": pytest.approx(0.8)}),
        ("other", 1, {"mean": 0.6, "sd": None, "low": 0.6, "high": 0.6, "seeds": 1}),
    ]


def test_a_run_of_another_seed_is_of_the_same_comparison(tmp_path):
    items = ITEMS[:10]
    rng = np.random.default_rng(0)
    names, patients = [item["name"] for item in ITEMS], [item["patient_id"] for item in ITEMS]
    predictions = Predictions(
        rng.random((40, 2)), np.eye(2)[np.arange(20).repeat(2) % 2], ["a", "b"], "multilabel", names, patients
    )
    points = []
    for seed in (0, 1):
        run = LabelEfficiency(str(tmp_path), "", "test", ITEMS, {"evaluate_split": "test"}, "phantoms", 20,
                              seeds={"seed": seed, "subset_seed": 2, "split_seed": 3})  # fmt: skip
        points.append(run.measure("linear probe", "cleft", 0.1, items, predictions, {}))
        stored = put(run, points[-1])
    assert [point["seeds"] for point in stored["points"]] == [
        {"seed": seed, "subset_seed": 2, "split_seed": 3} for seed in (0, 1)
    ]
    assert points[0].estimates == points[1].estimates, "the draws of the intervals are none of the run's seeds"


def test_another_comparison_is_set_aside_and_comes_back(tmp_path, caplog):
    put(comparison(tmp_path), POINT, replace(POINT, source="random", settings={}))
    stored = put(comparison(tmp_path, classes=["a", "c"]), POINT)
    assert len(stored["points"]) == 1
    assert "was of another comparison: it is now" in caplog.text
    assert len(list((tmp_path / "eval").glob("label_efficiency.*.json"))) == 1
    assert len(list((tmp_path / "eval").glob("label_efficiency.*.png"))) == 1
    stored = put(comparison(tmp_path), replace(POINT, fraction=0.1))
    assert [(p["source"], p["fraction"]) for p in stored["points"]] == [
        ("cleft", 0.01),
        ("cleft", 0.1),
        ("random", 0.01),
    ]
    stored = put(comparison(tmp_path, classes=["a", "c"]), replace(POINT, fraction=0.1))
    assert [p["fraction"] for p in stored["points"]] == [0.01, 0.1]


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
    estimate = point.estimates["auroc_macro"]
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n_patients == 20


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


def test_several_seeds_are_one_line_with_their_mean_and_spread(tmp_path):
    points = [of_seed(seed, value) for seed, value in enumerate([0.7, 0.8, 0.9])]
    points.append(of_seed(0, 0.5, fraction=1.0, train_images=400))
    lines = comparison_of(tmp_path, points).summary()
    assert "0.800, sd 0.100 (0.700 to 0.900 in 3 seeds)" in lines[1]
    assert "0.500 (0.400 to 0.600)" in lines[2]
    axes = label_efficiency_figure(points, "phantoms, test").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["linear probe, cleft, 3 seeds"]
    (bars,) = axes.containers
    middle = bars.lines[0].get_ydata()
    assert middle.tolist() == pytest.approx([0.8, 0.5])
    first, second = bars.lines[2][0].get_segments()
    assert (first[0][1], first[1][1]) == pytest.approx((0.7, 0.9)), "a standard deviation of 0.1 on either side"
    assert (second[0][1], second[1][1]) == pytest.approx((0.4, 0.6)), "the interval of a single seed"
    assert "of several seeds mean and sd" in axes.get_ylabel()
    assert over_seeds([]) == []


def test_points_of_several_checkpoints_are_told_apart(tmp_path):
    points = [of_seed(0, 0.7), of_seed(0, 0.8, settings={"checkpoint": "0123456789abcdef"})]
    lines = comparison_of(tmp_path, points).summary()
    assert "cleft 01234567 " in lines[1]
    assert "cleft abc " in lines[2]
    legend = label_efficiency_figure(points, "phantoms").axes[0].get_legend()
    assert len({text.get_text() for text in legend.get_texts()}) == 2


def comparison_of(tmp_path, points):
    gathered = comparison(tmp_path)
    put(gathered, *points)
    return gathered


def test_no_two_runs_of_a_grid_share_a_folder():
    grid = [(source, share, seed, subset, split) for source in ("cleft", "random") for share in (0.01, 0.1, 1)
            for seed in (0, 1) for subset in (0, 1) for split in (0, 1)]  # fmt: skip
    names = [point_name(*cell) for cell in grid]
    assert len(set(names)) == len(grid)
    assert point_name("cleft", 0.1, 1, 2, 3) == "cleft_0.1_seed1_subset2_split3"
    assert point_name("cleft", 1, 0, 0, 0) == point_name("cleft", 1.0, 0, 0, 0)
