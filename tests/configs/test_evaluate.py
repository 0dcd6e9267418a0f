"""The report that an evaluation leaves."""

import json
from html.parser import HTMLParser

import mlflow
import numpy as np
import pytest

from cleft_bundle.data import fingerprint
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


class Loads(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


@pytest.fixture
def options(chest_phantoms, tmp_path):
    """What both evaluations share: a test split, and two prompts a class."""
    prompts = json.loads((ROOT / "configs" / "prompts" / "chexpert.json").read_text())
    prompts["templates"].append("{class}")
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    data = {"dataset_dir": chest_phantoms, "prompt_file": str(tmp_path / "prompts.json")}
    return {**TINY, **data, "resamples": 50, "evaluate_split": "test", "test_fraction": 0.5}


@pytest.fixture
def evaluated(run_config, chest_phantoms, options, tmp_path):
    """A tiny training and an evaluation of it, and the report that this left."""
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    files = {"output_dir": str(tmp_path / "report")}
    workflow = run_config(["train.json", "evaluate.json"], "evaluating", **options, report_cases=3, **files)
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

    operating = report["operating_points"]
    assert operating["same_images"] is False
    assert operating["classes"].keys() <= report["classes"].keys()
    validation = workflow.parser.get_parsed_content("operating").details  # a threshold is one of its scores
    assert len(validation["names"]) == len(splits["validation"])
    fitted = operating["calibration"]
    assert fitted["method"] == "bias"
    for name, point in operating["classes"].items():
        column = validation["logits"][:, list(report["classes"]).index(name)]
        column = 1 / (1 + np.exp(-(column / fitted["temperature"] + fitted["bias"][name])))
        assert min(abs(column - point["threshold"])) < 1e-6
    calibrated = operating["calibrated"]["metrics"]["auroc_macro"]["value"]
    assert calibrated == pytest.approx(interval["value"], abs=1e-6), "calibration changes no ranking"

    spread = report["prompt_sensitivity"]
    prompts = list(report["prompts"].values())
    assert [list(variant.values()) for variant in spread["prompts"]] == [
        list(one) for one in zip(*prompts, strict=True)
    ]
    assert spread["metrics"]["auroc_macro"]["n"] == len(prompts[0]) > 1

    html = (folder / "report.html").read_text()
    page = Loads()
    page.feed(html)
    assert page.found
    assert all(value.startswith("data:image/") for value in page.found)
    assert "@import" not in html
    assert "url(" not in html
    assert html.count("data:image/png;base64,") == 18
    assert "Synthetic phantoms, no patients." in html
    assert f"{interval['value']:.3f}" in html
    for item in items:  # neither pseudonyms nor names of files
        assert item["patient_id"] not in html + json.dumps(report)
        assert item["name"] not in html + json.dumps(report)

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {"report.html", "report.json"}


def test_evaluations_of_the_same_images_are_compared(evaluated, run_config, options, tmp_path):
    _, first = evaluated
    options |= {"output_dir": str(tmp_path / "second"), "compared_with": [str(first)], "tracking_uri": ""}
    files = ["train.json", "evaluate.json"]
    run_config(files, "evaluating", **options, report_cases=1, evaluated_as="again")
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    (comparison,) = report["comparisons"]
    assert comparison["name"] == "cleft.pt"
    difference = comparison["metrics"]["auroc_macro"]
    assert difference["first"] == difference["second"] == report["metrics"]["auroc_macro"]["value"]
    assert difference["value"] == 0
    assert "Compared with cleft.pt" in (tmp_path / "second" / "report.html").read_text()

    with pytest.raises(RuntimeError) as caught:
        run_config(files, "evaluating", **options | {"evaluate_split": "validation"})
    assert "is of other images" in bundle_error(caught)
