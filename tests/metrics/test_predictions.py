from dataclasses import replace

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from tests.metrics.predictions import make


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_names_its_image(value):
    predictions = make(images=10)
    scores = predictions.scores.copy()
    scores[3, 1] = value
    with pytest.raises(BundleError, match=r"^predictions: 1 of 10 images have a score .* the first: image 3$"):
        replace(predictions, scores=scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": np.full((10, 3), 0.5)},
            r"10 of 10 images have a label other than 1, 0 and NaN, .* image 0, image 1",
        ),
        ({"labels": np.zeros((10, 2))}, r"expected labels of 10 images x 3 classes, got shape \(10, 2\)"),
        ({"task": "both"}, "task: expected one of multiclass, multilabel, got 'both'"),
        ({"patients": [None, *"abcdefghi"]}, "1 of 10 images have no patient, the first: image 0"),
        ({"patients": ["a"] * 9}, "patients has 9 values for 10 images"),
        ({"groups": {"sex": ["F"]}}, "sex has 1 values for 10 images"),
        ({"names": ["a"] * 10}, "9 of 10 images are listed twice"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(BundleError, match=message):
        replace(make(images=10), **change)


def test_one_of_several_classes_is_unknown_where_classes_exclude_each_other():
    predictions = make(images=4, task="multiclass", unknown=0)
    nan = float("nan")
    labels = np.array([[1, 1, 0], [nan, 1, nan], [0, 0, 0], [0, nan, 0]])
    expected = np.array([[nan] * 3, [0, 1, 0], [0, 0, 0], [0, nan, 0]])
    np.testing.assert_array_equal(replace(predictions, labels=labels).labels, expected)


def test_no_image_at_all():
    with pytest.raises(BundleError, match="there is no image"):
        make(images=0)


def test_unknown_groups_are_none_and_rows_are_selected_together():
    predictions = replace(make(images=4), groups={"sex": ["F", np.nan, None, "M"]})
    assert predictions.groups["sex"].tolist() == ["F", None, None, "M"]
    part = predictions.select(np.array([3, 0]))
    assert part.names.tolist() == ["image 3", "image 0"]
    assert part.groups["sex"].tolist() == ["M", "F"]
    assert part.scores == pytest.approx(predictions.scores[[3, 0]])
