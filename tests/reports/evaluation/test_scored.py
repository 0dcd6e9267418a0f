import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Calibration
from tests.reports.evaluation.conftest import items_of


def test_images_without_an_answer_are_told_apart_from_those_that_have_one(make_scored):
    scores = make_scored().scores.copy()
    scores[5] = np.nan
    errors = [""] * 60
    errors[7] = "not a radiograph"
    scored = make_scored(scores=scores, errors=errors)
    assert len(scored.predictions) == len(scored.scored_items) == 58
    assert not {"folder/5.png", "folder/7.png"} & set(scored.predictions.names)


def test_groups_are_words_and_bands_of_ages(make_scored):
    items = items_of(60)
    for number, age in enumerate((0.5, 18.0, 59.9, 95.0, float("nan"))):
        items[number]["age"] = age
    groups = make_scored(items=items).predictions.groups
    assert list(groups["age"][:6]) == ["0 to 17", "18 to 39", "40 to 59", "80 and over", None, None]
    assert list(groups["sex"][:4]) == ["female", "male", "female", None]


def test_a_class_without_a_threshold_is_not_called(make_scored):
    predictions, limits = make_scored(thresholds={"edema": 0.4}).called()
    assert (list(predictions.class_names), limits) == (["edema"], [0.4])
    assert make_scored(thresholds=None).called() is None


def test_scores_before_calibration_come_from_the_logits(make_scored):
    logits = np.random.default_rng(1).normal(size=(60, 2))
    fitted = {"method": "temperature", "temperature": 2.0}
    scored = make_scored(logits=logits, scores=Calibration(2.0, [0, 0], "multilabel")(logits), calibration=fitted)
    np.testing.assert_allclose(scored.uncalibrated.scores, 1 / (1 + np.exp(-logits)))
    assert make_scored(logits=logits, calibration={"method": "none"}).uncalibrated is None
    assert make_scored().uncalibrated is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": np.zeros((60, 3))}, "expected scores of 60 images x 2 classes"),
        ({"thresholds": {"oedema": 0.5}}, "oedema are none of the classes"),
        ({"errors": ["unreadable"] * 60}, "none of 60 images has a score, the first: unreadable"),
        ({"task": "both"}, "task"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(make_scored, wrong, message):
    with pytest.raises(BundleError, match=message):
        make_scored(**wrong, **({"items": items_of(60)} if "scores" in wrong else {}))
