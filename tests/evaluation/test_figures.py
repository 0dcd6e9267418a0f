import json

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.evaluation import Resampling, to_predictions
from cleft_bundle.evaluation.cases import choose_cases
from cleft_bundle.evaluation.figures import figures
from cleft_bundle.metrics import bootstrap, classification_metrics

CLASSES = ["effusion", "edema"]


def make_items(count=60):
    return [
        {"name": f"{number}.png", "patient_id": f"p{number // 2}", "image": f"{number}.png"}
        | ({"sex": "FM"[number % 2]} if number != 3 else {})
        for number in range(count)
    ]


@pytest.fixture
def details():
    rng = np.random.default_rng(0)
    label = (rng.random((60, 2)) < 0.4).astype(np.float32)
    scores = (0.3 * label + 0.7 * rng.random((60, 2))).astype(np.float32)
    return {"names": [f"{number}.png" for number in range(60)], "scores": scores, "label": label}


def test_scores_are_joined_with_the_items_by_name_in_whatever_order_they_came(details):
    order = np.random.default_rng(1).permutation(60)
    mixed = {"names": [f"{row}.png" for row in order]} | {key: details[key][order] for key in ("scores", "label")}
    one, other = (to_predictions(given, make_items(), CLASSES, "multilabel") for given in (details, mixed))
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.labels, details["label"])
    assert list(one.patients[:4]) == ["p0", "p0", "p1", "p1"]
    assert list(one.groups) == ["sex"]
    assert list(one.groups["sex"][:4]) == ["female", "male", "female", None]


def test_ages_are_taken_in_bands(details):
    items = make_items()
    for number, age in enumerate((0.5, 18.0, 59.9, 95.0, float("nan"))):
        items[number]["age"] = age
    groups = to_predictions(details, items, CLASSES, "multilabel").groups
    assert list(groups["age"][:6]) == ["0 to 17", "18 to 39", "40 to 59", "80 and over", None, None]


def test_an_image_without_scores_is_an_error(details):
    with pytest.raises(BundleError, match=r"1 of 61 images were not evaluated, the first: 60.png"):
        to_predictions(details, make_items(61), CLASSES, "multilabel")


def test_figures_are_those_of_the_metrics_with_intervals_by_patient(details):
    predictions = to_predictions(details, make_items(), CLASSES, "multilabel")
    ranks = np.arange(60) % 4, np.arange(4)
    content = figures(predictions, ranks, Resampling(resamples=50, seed=3))
    values = {name: metric["value"] for name, metric in content["metrics"].items()}
    assert values == classification_metrics(predictions)
    expected = bootstrap(predictions, resamples=50, seed=3)["auroc/edema"]
    found = content["metrics"]["auroc/edema"]
    assert (found["low"], found["high"], found["n_patients"]) == (expected.low, expected.high, 30)
    assert content["classes"]["edema"]["positive"] == details["label"][:, 1].sum()
    assert content["retrieval"]["image_to_text_recall_at_1"]["value"] == 0.25
    assert content["retrieval"]["image_to_text_recall_at_1"]["low"] < 0.25
    assert content["retrieval"]["text_to_image_recall_at_1"]["low"] is None
    assert content["confusion_matrix"] is None
    assert sum(content["reliability"]["edema"]["count"]) == 60
    female = content["subgroups"]["sex"]["values"]["female"]["accuracy/edema"]
    assert female["n_images"] == 30
    assert content["subgroups"]["sex"]["n_unknown"] == 1
    json.dumps(content, allow_nan=False)


def test_cases_are_the_surest_ones_of_each_class_in_turn(details):
    predictions = to_predictions(details, make_items(), CLASSES, "multilabel")
    cases = choose_cases(predictions, 6)
    scores, labels = predictions.scores, predictions.labels
    assert cases["found"][0]["score"] == scores[labels[:, 0] == 1, 0].max()
    assert cases["missed"][0]["score"] == scores[labels[:, 0] == 1, 0].min()
    assert cases["false_alarms"][0]["class"] == "effusion"
    rows = [case["row"] for chosen in cases.values() for case in chosen]
    assert len(rows) == len(set(rows)) == 18
    for chosen in cases.values():
        assert len({predictions.patients[case["row"]] for case in chosen}) == 6


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"resamples": True}, {"confidence": 95}])
def test_settings_that_give_no_interval_are_refused(wrong):
    with pytest.raises(BundleError, match="expected"):
        Resampling(**wrong)
