from dataclasses import replace

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Predictions, by_unit
from tests.metrics.predictions import make

NAN = np.nan


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_each_unit_has_the_score_of_its_images(how, seed):
    images = make(seed, images=80, patients=25, unknown=0.3, groups={"view": ["CC", "MLO"] * 40, "site": ["A"] * 80})
    units = by_unit(images, images.patients, how)
    assert list(units.names) == list(dict.fromkeys(images.patients))
    for row, name in enumerate(units.names):
        own = images.patients == name
        assert units.patients[row] == name
        assert units.scores[row] == pytest.approx(getattr(images.scores[own], how)(axis=0))
        for column, label in enumerate(units.labels[row]):
            truth = images.labels[own, column]
            expected = 1 if (truth == 1).any() else NAN if np.isnan(truth).any() else 0
            assert label == pytest.approx(expected, nan_ok=True)
        views = set(images.groups["view"][own])
        assert units.groups["view"][row] == (views.pop() if len(views) == 1 else None)
        assert units.groups["site"][row] == "A"


def test_a_breast_is_a_patient_and_a_side_and_images_without_one_are_left_out():
    scores, labels = np.array([[0.1], [0.9], [0.3], [0.4]]), np.array([[0.0], [NAN], [0], [1]])
    images = Predictions(scores, labels, ["c"], "multilabel", list("abcd"), ["p", "p", "p", "p"])
    breasts = by_unit(images, ["p left", "p left", "p right", None])
    assert list(breasts.names) == ["p left", "p right"]
    assert breasts.scores[:, 0].tolist() == [0.9, 0.3]
    np.testing.assert_array_equal(breasts.labels[:, 0], [NAN, 0])


def test_probabilities_of_a_multiclass_task_add_up_to_one_again():
    images = make(task="multiclass", images=60, patients=20)
    for how in ("max", "mean"):
        units = by_unit(images, images.patients, how)
        np.testing.assert_allclose(units.scores.sum(axis=1), 1)
    logits = replace(images, scores=np.log(images.scores))
    own = logits.patients == logits.patients[0]
    assert by_unit(logits, logits.patients).scores[0] == pytest.approx(logits.scores[own].max(axis=0))


def test_what_does_not_fit_is_named():
    images = make(images=20, patients=10)
    with pytest.raises(BundleError, match="units: 1 of 1 hold images of several patients"):
        by_unit(images, ["one"] * 20)
    with pytest.raises(BundleError, match="units: expected one for each of 20 images, got 3"):
        by_unit(images, ["one"] * 3)
    with pytest.raises(BundleError, match="units: no image belongs to one"):
        by_unit(images, [None] * 20)
    with pytest.raises(BundleError, match="how: expected one of max, mean, got 'median'"):
        by_unit(images, images.patients, "median")
