import numpy as np
import pytest
import torch
from scipy.special import expit

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Screening
from cleft_bundle.metrics.screening import MIN_IMAGES
from cleft_bundle.networks.classifiers.zero_shot import probabilities

NAMES = ["edema", "fracture"]


@pytest.fixture
def validation():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 2)) - 1
    labels = (rng.random((4000, 2)) < expit(truth)).astype(float)
    return 3 * (truth + 2), labels  # three times as sure as they should be, and shifted


def test_bias_calibrates_and_thresholds_reach_their_target(validation):
    logits, labels = validation
    chosen = Screening("bias", "sensitivity", 0.9).choose(logits, labels, NAMES, "multilabel")
    assert chosen.calibration.temperature == pytest.approx(3, rel=0.15)
    assert chosen.calibration.bias == pytest.approx([-2, -2], abs=0.3)
    probabilities = chosen.calibration(logits)
    np.testing.assert_allclose(probabilities.mean(axis=0), labels.mean(axis=0), atol=0.01)
    for number, name in enumerate(NAMES):
        called = probabilities[:, number] >= chosen.thresholds[name]
        assert 0.9 <= called[labels[:, number] == 1].mean() < 0.91


def test_none_leaves_the_probabilities_as_they_are(validation):
    logits, labels = validation
    chosen = Screening("none", "youden", None).choose(logits, labels, NAMES, "multilabel")
    np.testing.assert_allclose(chosen.calibration(logits), expit(logits))


def test_without_labels_nothing_is_chosen_and_the_log_says_so(validation, caplog):
    logits, labels = validation
    chosen = Screening().choose(logits, np.full_like(labels, np.nan), NAMES, "multilabel")
    assert chosen.thresholds == {}
    np.testing.assert_allclose(chosen.calibration(logits), expit(logits))
    assert "no known label" in caplog.text


def test_a_class_without_both_sides_gets_no_threshold(validation):
    logits, labels = validation
    labels[:, 1] = 0
    assert list(Screening().choose(logits, labels, NAMES, "multilabel").thresholds) == ["edema"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"calibration": "platt"}, "calibration"),
        ({"rule": "f1"}, "rule"),
        ({"rule": "youden"}, "expected no target"),
        ({"target": 90}, "target in 0..1"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_at_the_start(settings, words):
    with pytest.raises(BundleError, match=words):
        Screening(**settings)


def test_too_few_images_stay_uncalibrated_and_the_log_says_so(caplog):
    logits = np.linspace(-1, 1, MIN_IMAGES)[:, None]
    labels = (logits > 0.2).astype(float)
    labels[3] = np.nan
    chosen = Screening().choose(logits, labels, ["edema"], "multilabel")
    assert (chosen.calibration.temperature, chosen.calibration.n_images) == (1, 0)
    assert "14 validation images with a usable label are too few to calibrate on (15 are needed)" in caplog.text
    assert chosen.thresholds
    labels[3] = 0
    chosen = Screening().choose(logits, labels, ["edema"], "multilabel", patients=np.arange(MIN_IMAGES))
    assert chosen.calibration.low < chosen.calibration.temperature < chosen.calibration.high
    assert chosen.calibration.n_images == MIN_IMAGES


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
@pytest.mark.parametrize("method", ["temperature", "bias"])
def test_a_promise_made_in_double_precision_is_kept_by_the_classifier_that_is_served(task, method):
    rng = np.random.default_rng(3)
    labels = np.eye(3)[rng.integers(0, 3, 600)]
    logits = (14 * (labels + 0.7 * rng.normal(size=labels.shape))).astype(np.float32)
    chosen = Screening(method, "sensitivity", 0.9).choose(logits, labels, ["a", "b", "c"], task)
    scale = chosen.calibration
    temperature, bias = torch.tensor(scale.temperature), torch.tensor(scale.bias)  # float32, as they are kept
    served = probabilities(torch.from_numpy(logits) / temperature + bias, task)
    folded = probabilities(torch.from_numpy(logits) * (1 / temperature) + bias, task)  # as an export may compute it
    double = scale(logits)
    for number, (name, least) in enumerate(chosen.thresholds.items()):
        calls = double[:, number] >= least
        assert calls[labels[:, number] == 1].mean() >= 0.9, name
        for scores in (served, folded):
            np.testing.assert_array_equal(scores[:, number].numpy() >= least, calls)
            assert [score >= least for score in scores[:, number].tolist()] == calls.tolist()
