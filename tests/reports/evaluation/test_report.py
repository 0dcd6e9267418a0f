"""The page as people see it."""

import html
import json

import numpy as np
import pytest

from cleft_bundle.reports.evaluation import CasePictures, Comparison, Extras, Resampling, Settings, write_report
from cleft_bundle.reports.evaluation.sections.parts import bar, better
from tests.reports.evaluation.conftest import items_of

FEW = Settings(Resampling(resamples=30), CasePictures(4))
DATASET = {"name": "hospital <1>", "split": "test", "fingerprint": None, "phantoms": False}


@pytest.fixture
def written(tmp_path):
    def write(scored, settings=FEW, **extras):
        comparison = Comparison(scored.name, [], scored.scored_items, scored.class_names)
        page, program, _ = write_report(scored, tmp_path, DATASET, comparison, settings, Extras(**extras))
        return html.unescape(page.read_text(encoding="utf-8")), json.loads(program.read_text())

    return write


def test_a_perfect_classifier_is_shown_without_errors(written, perfect):
    page, content = written(perfect)
    assert content["outcomes"] == {"found": 60, "missed": 0, "false_alarms": 0, "left_alone": 60}
    assert "No present class was missed." in page
    assert "No absent class was called." in page
    point = content["operating_points"]["classes"]["edema"]
    assert [point[key] for key in ("tp", "fp", "fn", "tn")] == [30, 0, 0, 30]
    assert content["metrics"]["auroc_macro"]["value"] == 1


def test_a_useless_classifier_is_not_flattered(written, make_scored):
    scores = np.random.default_rng(7).random((60, 2))
    _, content = written(make_scored(scores=scores))
    estimate = content["metrics"]["auroc_macro"]
    assert estimate["low"] < 0.5 < estimate["high"]
    line = content["calibration_lines"]["edema"]["slope"]
    assert line["low"] < 0 < line["high"]
    curve = content["decision_curves"]["edema"]
    at = curve["threshold"].index(0.5)
    assert curve["net_benefit"][at] <= 0.05


def test_figures_on_patients_who_chose_something_say_so(written, make_scored):
    fair, content = written(make_scored(), roles={"weights": 0, "epoch": 0, "thresholds": 0})
    assert "None of these patients was used for weights, epoch, thresholds" in fair
    assert "trained or tuned on some of these patients" not in fair
    flattered, _ = written(make_scored(), roles={"weights": 0, "epoch": 12}, unknown_roles=["prompts"])
    assert flattered.count("trained or tuned on some of these patients") == 4  # each tile
    assert f"its epoch was chosen on 12 of the {content['dataset']['patients']} patients" in flattered
    assert "Its file does not say which patients were used for: prompts." in flattered
    here = {"rule": "youden", "target": None, "on": "these same images", "same_images": True}
    same, _ = written(make_scored(chosen=here))
    assert same.count("trained or tuned on some of these patients") == 4
    unknown, _ = written(make_scored())
    assert "Whether the classifier was trained or tuned on these patients is not known." in unknown


def test_the_page_names_no_patient_and_no_file(written, make_scored):
    items = [{**item, "image": f"/secret/{item['name']}", "study_id": f"s{number:015x}"}
             for number, item in enumerate(items_of(60))]  # fmt: skip
    errors = ["/secret/folder/0.png: no radiograph"] + [""] * 59
    page, content = written(make_scored(items=items, errors=errors))
    for text in (page, json.dumps(content)):
        for item in items:
            assert not any(item[key] in text for key in ("name", "patient_id", "study_id", "image"))


def test_strange_names_are_shown_as_they_are(written, make_scored):
    names = ['a # b <i>c</i> & "d"', "$x_1$ " + "very long " * 12]
    scored = make_scored(class_names=names, thresholds=dict.fromkeys(names, 0.5), name="a<b>.pt")
    page, content = written(scored)
    assert list(content["classes"]) == names
    raw = page  # unescaped; the markup itself must have been escaped
    assert f"<td>{names[0]}</td>" in raw
    assert names[1] in raw


@pytest.mark.slow
def test_a_page_of_very_many_classes_stays_readable(written, make_scored):
    rng = np.random.default_rng(0)
    names = [f"finding {number}" for number in range(150)]
    labels = (rng.random((80, 150)) < 0.3).astype(float)
    scored = make_scored(
        class_names=names, labels=labels, scores=rng.random((80, 150)), thresholds=dict.fromkeys(names, 0.5),
        items=items_of(80),
    )  # fmt: skip
    page, _ = written(scored, Settings(Resampling(resamples=5), CasePictures(2)))
    assert page.count("data:image/svg+xml") <= 2 + 3 * 25
    assert all(f"<td>{name}</td>" in page for name in names)


def test_results_by_patient_and_study_stand_beside_those_by_image(written, make_scored):
    scored = make_scored()
    _, highest = written(scored)
    unit = highest["units"]["patient"]
    assert (unit["count"], unit["images"]) == (30, 60)
    joined = scored.scores.reshape(30, 2, 2).max(axis=1)[:, 1] >= 0.4
    truth = scored.labels.reshape(30, 2, 2).max(axis=1)[:, 1] == 1
    assert unit["metrics"]["sensitivity/edema"]["value"] == pytest.approx(joined[truth].mean())
    assert "study" not in highest["units"]  # the studies are the patients
    page, mean = written(scored, Settings(Resampling(resamples=30), CasePictures(0), unit_score="mean"))
    averaged = scored.scores.reshape(30, 2, 2).mean(axis=1)[:, 1] >= 0.4
    assert mean["units"]["patient"]["metrics"]["sensitivity/edema"]["value"] == pytest.approx(averaged[truth].mean())
    assert "A unit's score is the mean of its images" in page


def test_small_groups_are_points_without_an_interval(written, make_scored):
    items = items_of(60)
    for number, item in enumerate(items):
        item["age"] = 85.0 if number < 6 else 30.0
    page, content = written(make_scored(items=items))
    old = content["subgroups"]["age"]["values"]["80 and over"]["auroc_macro"]
    assert (old["value"] is not None, old["low"]) == (True, None)
    assert 'class="hollow"' in page


def test_every_metric_says_which_way_is_better():
    assert better("brier_macro") == better("ece/edema") == "lower is better"
    assert better("auroc_macro") == better("sensitivity/x") == "higher is better"


def test_a_bar_is_hollow_without_an_interval():
    assert bar({"value": 0.5, "low": None, "high": None})["bar"]["known"] is False
    drawn = bar({"value": 0.5, "low": 0.25, "high": 0.75}, reference=0.5)["bar"]
    assert (drawn["left"], drawn["width"], drawn["dot"], drawn["reference"]) == (25.0, 50.0, 50.0, 50.0)
