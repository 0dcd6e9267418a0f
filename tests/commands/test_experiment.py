import json
import os
import signal
import sqlite3
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cleft_bundle.commands.experiment import experiment
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import classification_metrics, paired_bootstrap
from cleft_bundle.metrics.score_files import read_kept_scores
from tests import processes

TINY = {
    **{"image_backbone#num_hidden_layers": 1, "image_backbone#hidden_size": 48, "image_backbone#image_size": 56},
    **{"image_size": 56, "batch_size": 8, "num_workers": 0, "resamples": 10},
}
LABELS = ['random "a|b" #1 [50 %]', "another seed's width"]


@pytest.fixture
def folder(tmp_path):
    """A folder of small images of two kinds, and an experiment of two rows on it."""
    rng = np.random.default_rng(0)
    rows = []
    (tmp_path / "set #1").mkdir()
    for number in range(60):
        positive = number % 2
        pixels = rng.integers(0, 120, (56, 56)) + 60 * positive * (np.arange(56) > 28)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set #1" / f"{number}.png")
        rows.append((f"{number}.png", ["no finding", "edema, #1 (50 %)"][positive], f"p{number}"))
    pd.DataFrame(rows, columns=["image", "finding", "patient_id"]).to_csv(
        tmp_path / "set #1" / "labels.csv", index=False
    )
    content = {
        "name": "tiny",
        "base": {
            "config_files": ["configs/train.json", "configs/data_folder.json"],
            "overrides": TINY | {"dataset_dir": "{data}", "splits#fractions": [0.4, 0.2, 0.4]},
        },
        "steps": {
            "probe": {
                "run": "probing",
                "config_files": ["configs/linear_probe.json"],
                "overrides": {"sources": ["random"], "fractions": [1.0], "strengths": [0.1]},
            }
        },
        "rows": [
            {"label": LABELS[0], "steps": ["probe"]},
            {"label": LABELS[1], "steps": ["probe"], "overrides": {"image_backbone#hidden_size": 24}},
        ],
        "seeds": [0],
        "reference": LABELS[1],
        "metrics": ["auroc/edema, #1 (50 %)", "accuracy"],
        "resamples": 100,
    }
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    return tmp_path


def started(root, folder):
    """The command in a session of its own, so that all of it can be killed at once."""
    words = [
        "experiment",
        str(folder / "tiny.json"),
        "--data_root",
        str(folder / "set #1"),
        "--output_dir",
        str(folder),
    ]
    log = folder / "log.txt"
    return processes.start(["-m", "cleft_bundle", *words], log, log, root, session=True)


@pytest.mark.slow
def test_a_grid_goes_on_after_it_was_killed(root, folder):
    process = started(root, folder)
    ended = time.monotonic() + 500
    while not (done := list(folder.glob("tiny/runs/*/done.json"))) and time.monotonic() < ended:
        assert process.is_alive(), (folder / "log.txt").read_text()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert len(done) == 1
    assert not (folder / "tiny" / "table.md").exists()
    before = done[0].read_text()

    process = started(root, folder)
    process.join(500)
    assert process.exitcode == 0, (folder / "log.txt").read_text()
    assert done[0].read_text() == before
    assert "1 of 2 runs are done already" in (folder / "log.txt").read_text()
    table = pd.read_csv(folder / "tiny" / "table.csv").set_index(["label", "metric"])
    widths = {json.loads((path / "settings.json").read_text())["image_backbone#hidden_size"]: path
              for path in folder.glob("tiny/runs/*")}  # fmt: skip
    kept = [read_kept_scores(next((widths[width] / "eval" / "scores").glob("*.npz"))) for width in (48, 24)]
    for label, one in zip(LABELS, kept, strict=True):
        values = classification_metrics(one.predictions)
        for metric in ("auroc/edema, #1 (50 %)", "accuracy"):
            assert table.loc[(label, metric), "mean"] == pytest.approx(values[metric])
        assert table.loc[(label, metric), "trained_heads"] == one.about["settings"]["parameters"] > 0
    expected = paired_bootstrap(kept[0].predictions, kept[1].predictions, ["auroc"], 100)["auroc/edema, #1 (50 %)"]
    row = table.loc[(LABELS[0], "auroc/edema, #1 (50 %)")]
    assert row["difference"] == pytest.approx(expected.value)
    assert row["p_value"] == pytest.approx(expected.p_value, nan_ok=True)
    with sqlite3.connect(folder / "mlruns.db") as database:
        of_parent = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
    parent = (folder / "tiny" / "mlflow_run.txt").read_text().strip()
    assert list(of_parent.values()).count(parent) in (2, 3)  # the one that was killed may have begun its own


def test_a_dry_run_prints_commands_and_runs_nothing(folder, root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    experiment(str(folder / "tiny.json"), data_root=str(folder / "set #1"), output_dir=str(folder), dry_run="true")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        line for line in lines if line.startswith("python -m monai.bundle run probing --config_file ")
    ]
    assert lines[-1].startswith("# 2 of 2 runs are lacking")
    assert not list(folder.rglob("done.json"))


def test_arguments(folder, root, monkeypatch):
    monkeypatch.chdir(root)
    for options, told in (
        ({"jobs": "0"}, "jobs: expected a whole number, 1 or more, got '0'"),
        ({"dry_run": "ture"}, "dry_run: expected one of true, false, got 'ture'"),
        ({}, "--data_root is missing: the experiment names {data}"),
        ({"data_root": str(folder / "none")}, "--data_root: there is no folder"),
    ):
        with pytest.raises(BundleError) as caught:
            experiment(str(folder / "tiny.json"), output_dir=str(folder), **options)
        assert told in str(caught.value)
    with pytest.raises(BundleError, match="expected the file of an experiment"):
        experiment()
