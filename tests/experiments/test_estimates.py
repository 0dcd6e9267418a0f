import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from cleft_bundle.errors import BundleError
from cleft_bundle.experiments import Places, Plan, forest, read_experiment
from cleft_bundle.experiments.estimates import outcomes
from cleft_bundle.experiments.table import exact, write_tables
from cleft_bundle.files import save
from cleft_bundle.metrics import Predictions, bootstrap, classification_metrics, holm, paired_bootstrap
from cleft_bundle.metrics.score_files import keep_scores, read_kept_scores

CLASSES = ["no finding", "edema #1 50 %"]
IMAGES, PATIENTS = 80, 40


def scored(skill, seed, images=IMAGES):
    """Scores of images of two classes, the better the larger the skill; images and labels do not depend on the seed."""
    truth = np.arange(images) % 3 == 0
    wrong = np.random.default_rng(seed).normal(size=images)
    chance = 1 / (1 + np.exp(-skill * (truth - 0.5) - wrong))
    labels = np.stack([~truth, truth], axis=1).astype(float)
    names, patients = [f"{n}.png" for n in range(images)], [f"p{n % PATIENTS}" for n in range(images)]
    return Predictions(np.stack([1 - chance, chance], axis=1), labels, CLASSES, "multiclass", names, patients)


def finish(plan, skill_of):
    """Let every run have ended and left its scores."""
    for number, job in enumerate(plan.jobs.values()):
        if job.step == "zero_shot":
            keep_scores(job.folder / "eval" / "scores.npz", "x", skill_of(job))
        elif job.step == "probe":
            for fraction in (0.1, 1.0):
                about = {"source": "cleft", "fraction": fraction, "settings": {"parameters": 10}}
                path = job.folder / "eval" / "scores" / f"{fraction}.npz"
                keep_scores(path, "x", scored(2 * fraction, job.seed), about=about)
        else:
            names = {"image_encoder.backbone.a": 3, "image_encoder.projection.weight": 4, "logit_scale": 1}
            names |= {"text_encoder.backbone.lora_A": 5, "text_encoder.projection.0.running_mean": 7}
            save(
                {"weights": {name: torch.zeros(size) for name, size in names.items()}},
                job.folder / "models" / "cleft.pt",
            )
        done = {"fingerprint": job.fingerprint, "seconds": 9.0, "cpu_seconds": 60.0 + number}
        done |= {"peak_memory_bytes": 2**30 + number}
        (job.folder).mkdir(parents=True, exist_ok=True)
        (job.folder / "done.json").write_text(json.dumps(done))


@pytest.fixture
def plan(content, make_plan):
    content["rows"][0]["point"] = {}
    content["rows"][0]["steps"] = ["zero_shot"]
    content["metrics"] = ["auroc_macro", "auroc/edema #1 50 %", "accuracy"]
    content["resamples"] = 200
    plan = make_plan(content)
    finish(
        plan,
        lambda job: scored(0.5 if job.settings.get("peft") == "none" else 2.0, job.seed + 7 * ("peft" in job.settings)),
    )
    return plan


def of(plan, label, seed):
    line = next(line for line in plan.lines if line.label == label)
    return read_kept_scores(plan.jobs[line.chains[seed][-1]].folder / "eval" / "scores.npz").predictions


def test_mean_and_sd_are_those_of_the_kept_scores(plan):
    found = {one.line.label: one for one in outcomes(plan)}
    for label in ("LoRA", "frozen"):
        for metric in plan.experiment.metrics:
            values = [classification_metrics(of(plan, label, seed))[metric] for seed in (0, 1)]
            estimate = found[label].estimates[metric]
            assert estimate.mean == pytest.approx(sum(values) / 2)
            assert estimate.sd == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
            assert list(estimate.seeds.values()) == pytest.approx(values)
    probed = found["LoRA, 10 %"]
    assert probed.estimates["accuracy"].seeds[0] == classification_metrics(scored(0.2, 0))["accuracy"]
    assert (probed.images, probed.patients) == (IMAGES, PATIENTS)


def test_a_single_seed_has_the_interval_and_the_difference_of_the_metrics(content, make_plan):
    content["rows"][0] |= {"steps": ["zero_shot"]}
    content |= {"seeds": [3], "resamples": 200}
    plan = make_plan(content)
    finish(plan, lambda job: scored(0.5 if "peft" in job.settings else 2.0, len(job.settings)))
    found = {one.line.label: one.estimates["auroc_macro"] for one in outcomes(plan)}
    own, other = of(plan, "LoRA", 3), of(plan, "frozen", 3)
    interval = bootstrap(own, ["auroc"], 200)["auroc_macro"]
    assert (found["LoRA"].interval.low, found["LoRA"].interval.high) == pytest.approx((interval.low, interval.high))
    expected = paired_bootstrap(own, other, ["auroc"], 200)["auroc_macro"]
    apart = found["LoRA"].difference
    assert (apart.value, apart.low, apart.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert (apart.p_value, apart.p_is_bound) == pytest.approx((expected.p_value, expected.p_is_bound))
    levels = holm({label: found[label].difference.p_value for label in ("LoRA", "LoRA, 10 %")})
    assert {label: found[label].holm for label in levels} == pytest.approx(levels)
    assert found["frozen"].difference is None
    assert np.isnan(found["frozen"].sd)


def test_a_difference_is_known_of_each_seed(plan):
    found = {one.line.label: one.estimates["auroc_macro"] for one in outcomes(plan)}
    own, other = found["LoRA"], found["frozen"]
    expected = {seed: own.seeds[seed] - other.seeds[seed] for seed in (0, 1)}
    assert own.differences == pytest.approx(expected)
    assert own.difference.value == pytest.approx(sum(expected.values()) / 2)
    assert own.difference_sd == pytest.approx(abs(expected[0] - expected[1]) / 2**0.5)
    assert other.differences == {}


def test_the_picture_shows_what_the_table_says(plan, monkeypatch):
    drawn = []
    monkeypatch.setattr(forest, "draw_svg", lambda function, *arguments, size: drawn.append((function, arguments)))
    found = outcomes(plan)
    forest.draw_forest(plan.experiment, found)
    figure = Figure()
    drawn[0][0](figure, *drawn[0][1])
    assert len(figure.axes) == len(plan.experiment.metrics)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [one.line.label for one in found]
    compared = [one.estimates["auroc_macro"] for one in found if one.estimates["auroc_macro"].difference]
    lines = figure.axes[0].lines
    squares = [line for line in lines if line.get_marker() == "s"]
    bars = [line for line in lines if line.get_marker() == "None" and len(set(line.get_xdata())) == 2]
    assert [line.get_xdata()[0] for line in squares] == [one.difference.value for one in compared]
    assert [line.get_markerfacecolor() != "white" for line in squares] == [one.holm < 0.05 for one in compared]
    intervals = [(one.difference.low, one.difference.high) for one in compared]
    assert [tuple(line.get_xdata()) for line in bars] == intervals


def test_the_interval_is_of_the_mean_over_seeds(plan):
    found = next(one for one in outcomes(plan) if one.line.label == "LoRA").estimates["accuracy"]
    rng = np.random.default_rng(0)
    parts = [of(plan, "LoRA", seed) for seed in (0, 1)]
    right = np.mean([(part.scores.argmax(axis=1) == part.labels.argmax(axis=1)) for part in parts], axis=0)
    owner = np.unique(np.asarray(parts[0].patients, dtype=str), return_inverse=True)[1]
    drawn = [np.bincount(rng.integers(0, PATIENTS, PATIENTS), minlength=PATIENTS)[owner] for _ in range(200)]
    variance = np.var([(right * weights).sum() / weights.sum() for weights in drawn]) * PATIENTS / (PATIENTS - 1)
    half = (found.interval.high - found.interval.low) / 2
    assert half == pytest.approx(2.02 * variance**0.5, rel=0.05)  # Student's t of 39 degrees, before Wilson's form


def test_cost_and_trained_parameters(plan):
    first = next(one for one in outcomes(plan) if one.line.label == "LoRA, 10 %")
    chains = first.line.chains.values()
    seconds = [sum(plan.jobs[one].cost()["cpu_seconds"] for one in chain) for chain in chains]
    assert first.cpu_seconds == pytest.approx(sum(seconds) / 2)
    assert first.peak_memory == max(plan.jobs[one].cost()["peak_memory_bytes"] for chain in chains for one in chain)
    counts = first.parameters
    assert (counts.image, counts.text, counts.heads) == (3, 5, 4 + 1 + 10)


def test_rows_of_other_images_are_not_compared(plan):
    line = next(line for line in plan.lines if line.label == "LoRA")
    keep_scores(plan.jobs[line.chains[1][-1]].folder / "eval" / "scores.npz", "x", scored(1, 0, IMAGES - 1))
    with pytest.raises(BundleError, match=r"rows 'LoRA' and '.*', seed 1: paired comparison: 1 images are in one only"):
        outcomes(plan)


def test_a_class_that_there_is_not_and_a_point_that_is_not_one(plan, content, tmp_path):
    for change, told in (
        ({"metrics": ["auroc/edma #1 50 %"]}, "there is no 'auroc/edma #1 50 %' of these classes (did you mean"),
        ({"rows": [{"label": "frozen", "steps": ["probe"], "point": {"source": "cleft"}}]}, "means 2 of the scores"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(content | change))
        other = Plan(
            read_experiment(tmp_path / "other.json"),
            Places(plan.places.root, tmp_path / "o", str(tmp_path / "data #1")),
        )
        finish(other, lambda job: scored(1, job.seed))
        with pytest.raises(BundleError) as caught:
            outcomes(other)
        assert told in str(caught.value)


def test_the_table_in_four_forms(plan, tmp_path):
    found = outcomes(plan)
    files = write_tables(plan.experiment, found, tmp_path / "tables")
    assert [path.name for path in files] == ["table.md", "table.tex", "table.html", "table.csv", "forest.svg"]
    markdown, latex, html = (path.read_text() for path in files[:3])
    assert r"AUROC, edema \#1 50 %" in markdown
    assert r"AUROC, edema \#1 50 \%" in latex
    assert "AUROC, edema #1 50 %" in html
    mean = found[0].estimates["accuracy"].mean
    assert all(f"{mean:.3f} ± " in text for text in (markdown, latex, html))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(found)
    csv = pd.read_csv(files[3])
    assert len(csv) == 3 * len(found)
    pd.testing.assert_frame_equal(csv[["mean", "sd", "p_holm"]], exact(found)[["mean", "sd", "p_holm"]])


def test_labels_cannot_break_the_table(content, make_plan, tmp_path):
    label = 'a|b_c #1 <b> 50 % {x} & "d" $e$ [f](g)'
    content |= {"rows": [{"label": label, "steps": ["zero_shot"]}], "reference": label, "resamples": 2}
    plan = make_plan(content)
    finish(plan, lambda job: scored(1, job.seed))
    files = write_tables(plan.experiment, outcomes(plan), tmp_path)
    markdown, latex, html, _, picture = (path.read_text() for path in files)
    row = next(line for line in markdown.splitlines() if line.startswith("| a"))
    assert row.replace(r"\|", "").count("|") == markdown.splitlines()[2].replace(r"\|", "").count("|")
    assert r"a|b\_c \#1 <b> 50 \% \{x\} \& " in latex
    assert "&lt;b&gt;" in html
    assert "<b> 50" not in html
    assert ElementTree.fromstring(picture).tag.endswith("svg")  # noqa: S314 - our own
    assert pd.read_csv(tmp_path / "table.csv")["label"].tolist() == [label]
