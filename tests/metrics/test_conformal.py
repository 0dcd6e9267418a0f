"""Conformal sets keep a class for the share of its images that was promised."""

import numpy as np
import pytest

from cleft_bundle.engines.classifier_builder import calibrate
from cleft_bundle.metrics import Screening, conformal_limits, conformal_sets, set_coverage
from cleft_bundle.networks import ZeroShotClassifier

NAMES = ["a", "b"]


def scored(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.eye(2)[rng.integers(0, 2, count)]
    return 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=labels.shape)))), labels


@pytest.mark.parametrize("count", [9, 10, 19, 39])
def test_the_limit_is_the_rank_of_its_definition(count):
    scores = np.random.default_rng(count).random((count, 2))
    limits = conformal_limits(scores, np.ones((count, 2)), NAMES)
    for name, column in zip(NAMES, scores.T, strict=True):
        # of the n + 1 equally likely ranks of a new image, at most a tenth may lie below the limit
        assert (column < limits[name]).sum() + 1 == (count + 1) // 10
        assert limits[name] in column


def test_too_few_images_rule_nothing_out_and_unknown_labels_do_not_count():
    scores, labels = scored(100, 0)
    few = np.where(np.arange(100)[:, None] < 8, labels, np.nan)
    assert conformal_limits(scores, few, NAMES) == {"a": 0.0, "b": 0.0}
    assert conformal_sets(scores, NAMES, {"a": 0.0, "b": 0.0}).all()
    assert not conformal_sets(np.full((1, 2), np.nan), NAMES, {"a": 0.0, "b": 0.0}).any()


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_new_images_are_covered_as_was_asked_and_no_set_could_be_smaller(coverage):
    shares, smaller = [], []
    for seed in range(200):
        limits = conformal_limits(*scored(120, seed), NAMES, coverage)
        scores, labels = scored(400, 1000 + seed)
        for one, kept in ((shares, limits), (smaller, {name: limit + 0.03 for name, limit in limits.items()})):
            found = set_coverage(conformal_sets(scores, NAMES, kept), labels, list(range(400)))
            one.append([share.value for share in found])
    assert np.mean(shares, axis=0) == pytest.approx([coverage] * 2, abs=0.015)
    assert (np.mean(smaller, axis=0) < coverage).all()


def test_intervals_count_patients_and_hold_what_they_promise():
    rng, held, wide = np.random.default_rng(0), 0, []
    for _ in range(300):
        patient = rng.beta(9, 1, 60).repeat(4)  # four images that go together
        sets = (rng.random(240) < patient)[:, None]
        (share,) = set_coverage(sets, np.ones((240, 1)), np.arange(60).repeat(4).tolist())
        (single,) = set_coverage(sets, np.ones((240, 1)), list(range(240)))
        held += share.low <= 0.9 <= share.high
        wide.append((share.high - share.low) / (single.high - single.low))
    assert held / 300 == pytest.approx(0.95, abs=0.04)
    assert np.mean(wide) > 1.05
    (none,) = set_coverage(np.ones((2, 1), bool), np.zeros((2, 1)), ["p", "q"])
    assert np.isnan(none.value)
    assert none.n_images == 0


def test_a_classifier_keeps_its_limits_and_another_head_forgets_them(classifier):
    settings = {"task": "multilabel", "preprocessing": classifier.preprocessing}
    network = ZeroShotClassifier(classifier.image_encoder, classifier.class_names, **settings)
    network.load_state_dict(classifier.state_dict())
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 3)).astype(float)
    logits = 2 * labels + rng.normal(size=labels.shape)
    calibrate(network, Screening("bias"), logits, labels, None)
    kept = network.operating_point["conformal"]
    scale = 1 / (1 + np.exp(-(logits / float(network.temperature) + network.bias.numpy())))
    assert kept["coverage"] == 0.9
    expected = conformal_limits(scale, labels, network.class_names)
    assert kept["limits"] == pytest.approx(expected, rel=1e-5)
    weights, bias = network.calibrated_head()
    network.set_head(weights, bias)
    assert "conformal" not in network.operating_point
