import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_curve

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import choose_thresholds
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


def test_one_side_alone_has_no_threshold():
    with pytest.raises(BundleError, match=r"expected both sides, got 0 positive and 3 negative"):
        choose_threshold(np.arange(3.0), np.zeros(3), "youden")


def test_a_threshold_lies_midway_between_neighbours():
    scores, labels = np.array([0.1, 0.3, 0.4, 0.8]), np.array([0.0, 1, 0, 1])
    assert choose_threshold(scores, labels, "sensitivity", 1.0) == pytest.approx(0.2)
    assert choose_threshold(scores, labels, "sensitivity", 0.5) == pytest.approx(0.6)
    assert choose_threshold(scores, labels, "specificity", 0.5) == pytest.approx(0.2)
    assert choose_threshold(scores, labels, "specificity", 1.0) == pytest.approx(0.6)
    assert choose_threshold(scores, labels, "youden") == pytest.approx(0.2)
    above = choose_threshold(1 - scores, labels, "specificity", 1.0)
    assert 0.9 < above < 0.9001


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_a_promise_is_kept_in_every_precision_and_under_rounding(seed, scale):
    rng = np.random.default_rng(seed)
    labels = (rng.random(3000) < 0.2).astype(float)
    logits = (rng.normal(size=3000) + 1.5 * labels).astype(np.float32) * np.float32(scale)
    exact = expit(logits.astype(np.float64))
    for rule, side in (("sensitivity", 0), ("specificity", 1)):
        threshold = choose_threshold(exact, labels, rule, 0.9)
        promised = rates(exact, labels, threshold)
        assert promised[side] >= 0.9
        single = expit(logits)  # float32 throughout
        moved = expit(logits.astype(np.float64) * (1 + rng.uniform(-2e-7, 2e-7, 3000)) + rng.uniform(-2e-6, 2e-6, 3000))
        for scores in (single, moved, moved.astype(np.float32), single.astype(np.float64)):
            assert rates(scores, labels, threshold) == promised
            assert rates(scores, labels, np.float32(threshold)) == promised


def test_scores_that_differ_by_rounding_only_are_never_parted():
    base = np.repeat([0.2, 0.5, 0.7], 4)
    scores = base * (1 + np.tile([0, 3e-8, 1e-7, 4e-7], 3))
    labels = np.tile([1.0, 0, 1, 0], 3)
    for target in (0.1, 0.4, 0.6, 0.9):
        for rule in ("sensitivity", "specificity"):
            threshold = choose_threshold(scores, labels, rule, target)
            called = (scores >= threshold).reshape(3, 4)
            assert (called == called[:, :1]).all()
            reached = rates(scores, labels, threshold)[0 if rule == "sensitivity" else 1]
            assert reached >= target


def test_a_million_near_scores_are_not_one():
    rng = np.random.default_rng(0)
    scores = 0.5 + 0.01 * rng.random(400_000)
    labels = (rng.random(400_000) < (scores - 0.5) * 100).astype(float)
    sensitivity, specificity = rates(scores, labels, choose_threshold(scores, labels, "sensitivity", 0.9))
    assert 0.9 <= sensitivity < 0.901
    assert specificity > 0.4


@pytest.mark.parametrize("rule", ["sensitivity", "specificity"])
def test_a_perfect_score_has_no_error_whatever_the_target(rule):
    scores, labels = np.r_[np.linspace(0, 0.4, 50), np.linspace(0.6, 1, 50)], np.repeat([0.0, 1], 50)
    for target in (0.5, 0.9, 1.0):
        threshold = choose_threshold(scores, labels, rule, target)
        assert rates(scores, labels, threshold) == (1, 1)
        assert threshold == pytest.approx(0.5)


def test_scores_of_zero_and_one_have_a_threshold_beyond_them():
    scores, labels = np.array([0.0, 0, 1, 1]), np.array([1.0, 0, 1, 0])
    assert choose_threshold(scores, labels, "sensitivity", 1.0) < 0
    assert choose_threshold(scores, labels, "specificity", 1.0) > 1


def test_each_class_has_its_own():
    thresholds = choose_thresholds(make(images=300), "sensitivity", 0.8)
    assert thresholds.keys() == {"c0", "c1", "c2"}
    assert len(set(thresholds.values())) == 3
