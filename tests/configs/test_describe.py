"""The page about the data of a config."""

import functools

import mlflow
import pytest

from cleft_bundle.data import fingerprint
from cleft_bundle.networks import CLEFT
from tests.configs.conftest import TINY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("overlays", [[], ["data_phantom_breast.json"]], ids=["chest", "breast"])
def test_a_page_is_written_and_kept_by_mlflow_and_no_network_is_built(
    overlays, run_config, chest_phantoms, breast_phantoms, tmp_path, monkeypatch
):
    refuse = functools.wraps(CLEFT.__init__)(lambda *_, **__: pytest.fail("a network was built"))
    monkeypatch.setattr(CLEFT, "__init__", refuse)
    data = TINY | {"dataset_dir": breast_phantoms if overlays else chest_phantoms, "report_samples": 6}
    described = run_config(["train.json", *overlays, "describe.json"], "describing", **data)
    html = (tmp_path / "eval" / "data_report.html").read_text()
    assert html.count("data:image/png;base64,") == 6
    assert "Synthetic phantoms, no patients." in html
    assert fingerprint(described.parser.get_parsed_content("splits")) in html
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/eval/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert run.info.status == "FINISHED"
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == {"config.json", "data_report.html"}
    assert run.data.params["dataset_fingerprint"] in html


def test_without_tracking_there_is_the_page_alone(run_config, chest_phantoms, tmp_path):
    run_config(["train.json", "describe.json"], "describing", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"data_report.html"}


def test_chexpert_5x200_is_drawn_before_training(run_config, chest_phantoms):
    files = ["train.json", "test_chexpert_5x200.json", "describe.json"]
    sizes = {"dataset_dir": chest_phantoms, "tracking_uri": "", "balanced_test": 2, "report_samples": 0}
    splits = run_config(files, "describing", **TINY | sizes).parser.get_parsed_content("splits")
    assert [sum(item["label"][k] for item in splits["test"]) for k in range(5)] == [2] * 5
    patients = [{item["patient_id"] for item in members} for members in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))
