"""The report that an evaluation leaves."""

import json
import shutil
from html.parser import HTMLParser

import mlflow
import numpy as np
import pytest
from PIL import Image

from cleft_bundle.commands.report import report as make_report
from cleft_bundle.data import fingerprint
from tests.configs.conftest import TINY, bundle_error, runner
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


class Loads(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


@pytest.fixture(scope="module")
def options(chest_phantoms, tmp_path_factory):
    """What both evaluations share: a test split, and two prompts a class."""
    prompts = json.loads((ROOT / "configs" / "prompts" / "chexpert.json").read_text())
    prompts["templates"].append("{class}")
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    path.write_text(json.dumps(prompts))
    data = {"dataset_dir": chest_phantoms, "prompt_file": str(path)}
    return {**TINY, **data, "resamples": 50, "evaluate_split": "test", "test_fraction": 0.5,
            "allow_chosen_patients": True}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(chest_phantoms, options, tmp_path_factory):
    """A tiny training and an evaluation of it, and the report that this left; nothing else writes there."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = runner(folder)
    run(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    files = {"output_dir": str(folder / "report")}
    workflow = run(["train.json", "evaluate.json"], "evaluating", **options, report_cases=3, **files)
    return workflow, folder / "report"


def test_an_evaluation_leaves_a_page_and_its_figures(evaluated):
    workflow, folder = evaluated
    report = json.loads((folder / "report.json").read_text())
    metrics = workflow.evaluator.state.metrics
    ranked = [name for name in metrics if name.startswith(("auroc/", "average_precision"))]
    assert len(ranked) > 5
    for name in ranked:  # calibration of a multi-label task changes no ranking
        assert report["metrics"][name]["value"] == pytest.approx(metrics[name], abs=1e-6), name
    for name, estimate in report["retrieval"].items():
        assert estimate["value"] == pytest.approx(metrics[name], abs=1e-9), name
    assert report["metrics"]["auroc_macro"]["value"] == pytest.approx(metrics["zero_shot_auroc"], abs=1e-6)
    splits, items = (workflow.parser.get_parsed_content(name) for name in ("splits", "evaluated_items"))
    assert report["dataset"]["fingerprint"] == fingerprint(splits)
    assert (report["dataset"]["images"], report["dataset"]["phantoms"]) == (len(items), True)
    assert report["flow"]["evaluated"]["images"] == report["flow"]["listed"]["images"] == len(items)
    assert report["table_one"]["columns"] == ["train", "validation", "test"]
    assert len(report["provenance"]["checkpoint"]["sha256"]) == 64
    assert report["provenance"]["backbones"]["language model"]["fingerprint"]
    patients = len({item["patient_id"] for item in items})
    assert report["roles"] == {"weights": 0, "prompts": 0, "epoch": patients, "calibration": 0, "thresholds": 0}
    assert f"its epoch was chosen on {patients} of the {patients} patients" in (folder / "report.html").read_text()
    assert {row["name"] for row in report["shift"]["rows"]} >= {"view", "embedding by the network"}

    spread = report["prompt_sensitivity"]
    prompts = list(report["prompts"].values())
    assert [list(variant.values()) for variant in spread["prompts"]] == [
        list(one) for one in zip(*prompts, strict=True)
    ]
    assert spread["metrics"]["auroc_macro"]["n"] == len(prompts[0]) > 1


def test_the_page_is_about_the_scores_that_model_pt_answers(evaluated):
    workflow, folder = evaluated
    report = json.loads((folder / "report.json").read_text())
    operating = report["operating_points"]
    assert operating["chosen"]["same_images"] is False
    validation = workflow.parser.get_parsed_content("operating").details
    splits = workflow.parser.get_parsed_content("splits")
    assert len(validation["names"]) == len(splits["validation"])
    chosen = workflow.parser.get_parsed_content("screening").choose(
        validation["logits"], validation["label"], list(report["classes"]), report["task"]
    )
    details = workflow.evaluator.state.metric_details["zero_shot_auroc"]
    answered = chosen.calibration(details["logits"])
    for number, name in enumerate(report["classes"]):
        if name not in chosen.thresholds:
            assert f"sensitivity/{name}" not in report["metrics"]
            continue
        threshold = chosen.thresholds[name]
        assert operating["classes"][name]["threshold"] == pytest.approx(threshold, abs=1e-9)
        positive = details["label"][:, number] == 1
        if positive.any():
            called = (answered[:, number] >= threshold)[positive].mean()
            assert report["metrics"][f"sensitivity/{name}"]["value"] == pytest.approx(called, abs=1e-9)
    brier = np.nanmean((answered - details["label"]) ** 2, axis=0).mean()
    assert report["metrics"]["brier_macro"]["value"] == pytest.approx(brier, abs=1e-6)


def test_the_page_shows_the_cases_and_no_patient(evaluated):
    workflow, folder = evaluated
    report = json.loads((folder / "report.json").read_text())
    html = (folder / "report.html").read_text()
    page = Loads()
    page.feed(html)
    loaded = [value for value in page.found if not value.startswith("#")]
    assert loaded
    assert all(value.startswith("data:image/") for value in loaded)
    assert "@import" not in html
    assert "url(" not in html
    anchors = [value[1:] for value in page.found if value.startswith("#")]
    assert len(anchors) > 10
    assert all(f'id="{anchor}"' in html for anchor in anchors)
    counts = {kind: len(cases) for kind, cases in report["cases"].items()}
    assert all(counts[kind] == min(3, counts[kind]) for kind in counts)
    called = counts["found"] + counts["false_alarms"]  # a class that was not called gets no heat map
    assert html.count("data:image/png;base64,") == 2 * called + counts["missed"]
    assert "Synthetic phantoms, no patients." in html
    assert f"{report['metrics']['auroc_macro']['value']:.3f}" in html
    for item in workflow.parser.get_parsed_content("evaluated_items"):  # neither pseudonyms nor names of files
        assert item["patient_id"] not in html + json.dumps(report)
        assert item["name"] not in html + json.dumps(report)

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {"report.html", "report.json"}


def test_evaluations_of_the_same_images_are_compared(evaluated, run_config, options, tmp_path):
    _, first = evaluated
    shutil.copytree(first.parent / "models", tmp_path / "models")
    options = options | {"output_dir": str(tmp_path / "second"), "compared_with": [str(first)], "tracking_uri": ""}
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


FINDINGS = ("effusion", "no finding", "pneumonia")


@pytest.fixture
def hospital(tmp_path):
    """Pictures of three findings, two a patient, and their table."""
    folder = tmp_path / "hospital"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,finding,patient_id,split,sex,age,view"]
    for number in range(96):
        kind, patient = (number // 2) % 3, number // 2
        pixels = rng.integers(0, 120, (56, 56), dtype=np.uint8)
        pixels[18 * kind : 18 * kind + 18] += rng.integers(40, 130, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        split = "train" if patient < 24 else "validation"
        lines.append(f"images/{number}.png,{FINDINGS[kind]},p{patient},{split},{'FM'[patient % 2]},{20 + patient},PA")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def differing(one, other, path=""):
    """The places at which two reports differ by more than 1e-6."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [place for key in keys for place in differing(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for key, pair in pairs for place in differing(*pair, f"{path}/{key}")]
    if isinstance(one, float) and isinstance(other, float | int):
        return [] if one == pytest.approx(other, abs=1e-6, rel=1e-6) else [f"{path}: {one} and {other}"]
    return [] if one == other else [f"{path}: {one} and {other}"]


def test_a_report_of_a_table_and_of_a_file_is_that_of_the_evaluation(hospital, run_config, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["cleft", "report"])
    data = {"dataset_dir": str(hospital), "tracking_uri": ""}
    run_config(["train.json", "data_folder.json"], "training", **data, **TINY)
    evaluated, scored = tmp_path / "evaluated", tmp_path / "scored"
    files = ["train.json", "data_folder.json", "evaluate.json"]
    run_config(files, "evaluating", **data, **TINY, resamples=40, report_cases=2, output_dir=str(evaluated))
    model = str(tmp_path / "models" / "model.pt")
    run_config(["inference.json"], dataset_dir=str(hospital), model_path=model, output_dir=str(scored), num_workers=0)
    given = {"labels": str(hospital / "labels.csv"), "split": "validation", "resamples": "40", "cases": "2"}
    table, file = tmp_path / "of_table", tmp_path / "of_file"
    limits = str(evaluated / "report.json")
    predictions = str(scored / "predictions.csv")
    make_report(scores=predictions, thresholds=limits, output_dir=str(table), **given)
    make_report(model=model, output_dir=str(file), **given)
    first, second, third = (json.loads((folder / "report.json").read_text()) for folder in (evaluated, table, file))
    assert first["task"] == "multiclass"
    for key in ("metrics", "classes", "confusion_matrix", "reliability", "subgroups", "calibration_lines", "units",
                "decision_curves", "outcomes"):  # fmt: skip
        assert differing(first[key], second[key], key) == []
        assert differing(first[key], third[key], key) == []
    for other in (second, third):
        assert differing(first["operating_points"]["classes"], other["operating_points"]["classes"]) == []
    fitted, kept = (report["operating_points"]["calibration"] for report in (first, third))
    assert fitted["images"] == first["flow"]["evaluated"]["images"]
    assert differing(fitted, kept, "calibration") == []
    assert third["roles"]["weights"] == 0
    assert third["roles"]["calibration"] == third["roles"]["thresholds"] == third["dataset"]["patients"]
    assert second["roles"] is None
