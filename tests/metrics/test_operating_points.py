from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import apply_thresholds, bootstrap, choose_thresholds
from cleft_bundle.metrics.thresholds import choose_threshold
from tests.metrics.predictions import make


def rates(scores, labels, threshold):
    return (scores[labels == 1] >= threshold).mean(), (scores[labels == 0] < threshold).mean()


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]), st.booleans()), min_size=2, max_size=30).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    ),
    st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]),
)
def test_thresholds_are_the_best_that_reach_the_target(pairs, target):
    scores, labels = (np.array(part, dtype=float) for part in zip(*pairs, strict=True))
    every = [*np.unique(scores), 2.0]
    both = {threshold: rates(scores, labels, threshold) for threshold in every}
    own = rates(scores, labels, choose_threshold(scores, labels, "sensitivity", target))
    assert own[0] >= target
    assert own[1] == max(specificity for sensitivity, specificity in both.values() if sensitivity >= target)
    own = rates(scores, labels, choose_threshold(scores, labels, "specificity", target))
    assert own[1] >= target
    assert own[0] == max(sensitivity for sensitivity, specificity in both.values() if specificity >= target)
    own = rates(scores, labels, choose_threshold(scores, labels, "youden"))
    false_positive, true_positive, _ = roc_curve(labels, scores)
    assert sum(own) - 1 == pytest.approx((true_positive - false_positive).max())


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


@pytest.mark.parametrize(
    ("rule", "target", "message"),
    [
        ("best", None, "rule: expected one of sensitivity, specificity, youden, got 'best'"),
        ("youden", 0.9, "rule 'youden': expected no target, got 0.9"),
        ("sensitivity", None, "rule 'sensitivity': expected a target, got None"),
        ("specificity", 90, "rule 'specificity': expected a target in 0..1, got 90"),
    ],
)
def test_rules_and_targets_that_do_not_fit(rule, target, message):
    with pytest.raises(BundleError, match=message):
        choose_thresholds(make(), rule, target)


def test_unknown_classes_and_impossible_prevalences():
    with pytest.raises(BundleError, match="thresholds: x are none of c0, c1, c2"):
        apply_thresholds(make(), {"x": 0.5})
    with pytest.raises(BundleError, match="prevalence: expected a number between 0 and 1 for each class, not so: c0"):
        apply_thresholds(make(), {"c0": 0.5}, prevalence=1.5)
    with pytest.raises(BundleError, match=r"expected both sides, got 0 positive and 3 negative"):
        choose_threshold(np.arange(3.0), np.zeros(3), "youden")
