"""The report that an evaluation leaves."""

import json
from html.parser import HTMLParser

import mlflow
import pytest

from cleft_bundle.data import fingerprint
from tests.configs.conftest import TINY

pytestmark = pytest.mark.slow


class Loads(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


@pytest.fixture
def evaluated(run_config, chest_phantoms, tmp_path):
    """A tiny training and an evaluation of it, and the report that this left."""
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    files = {"output_dir": str(tmp_path / "report")}
    sizes = {"resamples": 50, "report_cases": 3, "dataset_dir": chest_phantoms, **TINY}
    workflow = run_config(["train.json", "evaluate.json"], "evaluating", **sizes, **files)
    return workflow, tmp_path / "report"


def test_an_evaluation_leaves_a_page_and_its_figures(evaluated):
    workflow, folder = evaluated
    report = json.loads((folder / "report.json").read_text())
    metrics = workflow.evaluator.state.metrics
    assert report["metrics"]["auroc_macro"]["value"] == pytest.approx(metrics["zero_shot_auroc"], abs=1e-9)
    for name, value in metrics.items():
        if name != "zero_shot_auroc":
            found = {**report["metrics"], **report["retrieval"]}[name]["value"]
            assert found == pytest.approx(value, abs=1e-9), name
    interval = report["metrics"]["auroc_macro"]
    assert interval["low"] is None or interval["low"] <= interval["value"] <= interval["high"]
    splits, items = (workflow.parser.get_parsed_content(name) for name in ("splits", "evaluated_items"))
    assert report["dataset"]["fingerprint"] == fingerprint(splits)
    assert (report["dataset"]["images"], report["dataset"]["phantoms"]) == (len(items), True)
    assert [len(cases) for cases in report["cases"].values()] == [3, 3, 3]
    assert len(report["provenance"]["checkpoint"]["sha256"]) == 64
    assert report["provenance"]["backbones"]["language model"]["fingerprint"]

    html = (folder / "report.html").read_text()
    page = Loads()
    page.feed(html)
    assert page.found
    assert all(value.startswith("data:image/") for value in page.found)
    assert "@import" not in html
    assert "url(" not in html
    assert html.count("data:image/png;base64,") == 9
    assert "Synthetic phantoms, no patients." in html
    assert f"{interval['value']:.3f}" in html
    for item in items:  # neither pseudonyms nor names of files
        assert item["patient_id"] not in html + json.dumps(report)
        assert item["name"] not in html + json.dumps(report)

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {"report.html", "report.json"}
