from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import apply_thresholds, bootstrap, choose_thresholds
from tests.metrics.predictions import make


def rates(scores, labels, threshold):
    return (scores[labels == 1] >= threshold).mean(), (scores[labels == 0] < threshold).mean()


def test_thresholds_of_validation_are_applied_to_test_with_intervals():
    validation, test = make(0, images=400, patients=150), make(1, images=400, patients=150)
    thresholds = choose_thresholds(validation, "sensitivity", 0.9)
    points = apply_thresholds(test, thresholds, prevalence=0.01, resamples=200)
    assert points.keys() == {"c0", "c1", "c2"}
    expected = bootstrap(test, ["sensitivity", "specificity"], resamples=200, thresholds=list(thresholds.values()))
    for name, point in points.items():
        assert point.threshold == thresholds[name]
        assert point.sensitivity == expected[f"sensitivity/{name}"]
        assert point.specificity == expected[f"specificity/{name}"]
        sensitivity, specificity = point.sensitivity.value, point.specificity.value
        assert point.ppv.value == pytest.approx(0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity)))
        assert point.npv.value == pytest.approx(0.99 * specificity / (0.99 * specificity + 0.01 * (1 - sensitivity)))
        assert point.ppv.low < point.ppv.value < point.ppv.high


def test_without_a_prevalence_predictive_values_are_those_counted_in_test():
    test = make(2, images=300, patients=100)
    points = apply_thresholds(test, {"c1": 0.5}, resamples=20)
    assert points.keys() == {"c1"}
    assert points["c1"].prevalence == pytest.approx(np.nanmean(test.labels[:, 1]))
    assert points["c1"].ppv.value == pytest.approx(bootstrap(test, ["precision"], resamples=5)["precision/c1"].value)


def test_each_class_of_a_multiclass_task_stands_against_the_others():
    predictions = make(3, task="multiclass", images=300, unknown=0)
    thresholds = choose_thresholds(predictions, "youden")
    point = apply_thresholds(predictions, thresholds, resamples=20)["c2"]
    own = rates(predictions.scores[:, 2], predictions.labels[:, 2], thresholds["c2"])
    assert (point.sensitivity.value, point.specificity.value) == pytest.approx(own)


def test_a_class_without_both_sides_has_no_threshold_and_no_sensitivity():
    predictions = make(4, unknown=0)
    labels = predictions.labels.copy()
    labels[:, 1] = 0
    one_sided = replace(predictions, labels=labels)
    assert choose_thresholds(one_sided, "youden").keys() == {"c0", "c2"}
    point = apply_thresholds(one_sided, {"c1": 0.5}, prevalence={"c1": 0.1}, resamples=20)["c1"]
    assert np.isnan([point.sensitivity.value, point.sensitivity.low, point.ppv.value]).all()
    assert point.specificity.is_known


def test_unknown_classes_and_impossible_prevalences():
    with pytest.raises(BundleError, match="thresholds: x are none of c0, c1, c2"):
        apply_thresholds(make(), {"x": 0.5})
    with pytest.raises(BundleError, match="prevalence: expected a number between 0 and 1 for each class, not so: c0"):
        apply_thresholds(make(), {"c0": 0.5}, prevalence=1.5)


def test_counts_and_likelihood_ratios_are_those_of_the_table():
    test = make(5, images=300, patients=300)
    scores, labels = test.scores[:, 0], test.labels[:, 0]
    point = apply_thresholds(test, {"c0": 0.6}, resamples=2000)["c0"]
    (tn, fp), (fn, tp) = confusion_matrix(labels[~np.isnan(labels)], scores[~np.isnan(labels)] >= 0.6)
    assert (point.tp, point.fp, point.fn, point.tn) == (tp, fp, fn, tn)
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    assert point.lr_positive.value == pytest.approx(sensitivity / (1 - specificity))
    assert point.lr_negative.value == pytest.approx((1 - sensitivity) / specificity)
    # Simel's interval of independent images
    spread = np.sqrt(1 / tp - 1 / (tp + fn) + 1 / fp - 1 / (fp + tn))
    expected = np.exp(np.log(point.lr_positive.value) + np.array([-1.96, 1.96]) * spread)
    assert (point.lr_positive.low, point.lr_positive.high) == pytest.approx(expected, rel=0.1)


def test_a_likelihood_ratio_without_a_false_alarm_has_no_value_and_one_without_a_miss_is_zero():
    test = make(6, images=100, patients=100, unknown=0)
    perfect = replace(test, scores=0.2 + 0.6 * test.labels)
    point = apply_thresholds(perfect, {"c0": 0.5}, resamples=100)["c0"]
    assert (point.fn, point.fp) == (0, 0)
    assert np.isnan(point.lr_positive.value)
    assert not point.lr_positive.is_known
    assert (point.lr_negative.value, point.lr_negative.low) == (0, 0)
    assert 0 < point.lr_negative.high < 0.2
