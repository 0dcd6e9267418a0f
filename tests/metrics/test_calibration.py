import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import calibrated_columns, classification_metrics, fit_bias, fit_temperature, reliability
from tests.metrics.predictions import make


def draw(task, temperature=3.0, bias=(0.5, -1.0, 0.2), images=4000, seed=0):
    """Logits that a temperature and biases make exactly right."""
    rng = np.random.default_rng(seed)
    right = rng.normal(size=(images, 3)) * 2
    if task == "multiclass":
        labels = np.eye(3)[[rng.choice(3, p=row) for row in softmax(right, axis=1)]]
    else:
        labels = (rng.random(right.shape) < expit(right)).astype(float)
    return (right - np.array(bias)) * temperature, labels


def test_reliability_is_scikit_learns_and_leaves_out_unknown_labels():
    predictions = make(images=500)
    for probabilities, labels in calibrated_columns(predictions).values():
        known = ~np.isnan(labels)
        diagram = reliability(probabilities, labels, bins=10)
        frequency, probability = calibration_curve(labels[known], probabilities[known], n_bins=10)
        filled = diagram.count > 0
        assert diagram.count.sum() == known.sum()
        assert diagram.frequency[filled] == pytest.approx(frequency)
        assert diagram.probability[filled] == pytest.approx(probability)
        assert np.isnan(diagram.frequency[~filled]).all()


def test_the_diagram_and_the_error_are_one_thing():
    for task in ("multilabel", "multiclass"):
        predictions = make(1, images=300, task=task)
        errors = {}
        for name, column in calibrated_columns(predictions).items():
            diagram = reliability(*column)
            gaps = np.nan_to_num(np.abs(diagram.probability - diagram.frequency))
            errors["ece" if task == "multiclass" else f"ece/{name}"] = (
                gaps * diagram.count
            ).sum() / diagram.count.sum()
        metrics = classification_metrics(predictions, metrics=["ece"])
        assert {name: metrics[name] for name in errors} == pytest.approx(errors)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_what_was_done_to_the_logits_is_found_and_undone(task):
    logits, labels = draw(task)
    calibration = fit_bias(logits, labels, task)
    assert calibration.temperature == pytest.approx(3, rel=0.1)
    expected = np.array([0.5, -1.0, 0.2])
    assert calibration.bias == pytest.approx(expected - (expected.mean() if task == "multiclass" else 0), abs=0.15)
    probabilities = calibration(logits)
    assert probabilities.mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=1e-4)  # as at any optimum with biases
    assert fit_temperature(*draw(task, bias=(0, 0, 0)), task).temperature == pytest.approx(3, rel=0.1)


def test_one_class_is_platt_scaling():
    logits, labels = draw("multilabel")
    labels[:, 1:] = np.nan
    calibration = fit_bias(logits, labels, "multilabel")
    platt = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, :1], labels[:, 0])
    assert 1 / calibration.temperature == pytest.approx(platt.coef_[0, 0], rel=1e-4)
    assert calibration.bias == pytest.approx([platt.intercept_[0], 0, 0], abs=1e-4)


def test_a_temperature_is_the_best_of_many_and_keeps_the_highest_class():
    logits, labels = draw("multiclass", images=500)
    calibration = fit_temperature(logits, labels, "multiclass")
    assert calibration.bias == [0, 0, 0]
    loss = [log_loss(labels, softmax(logits / t, axis=1)) for t in calibration.temperature * np.array([0.97, 1, 1.03])]
    assert loss[1] == min(loss)
    assert (calibration(logits).argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_unknown_labels_play_no_part(task):
    logits, labels = draw(task, images=300)
    unknown = np.vstack([labels, np.full((50, 3), np.nan)])
    more = np.vstack([logits, np.random.default_rng(1).normal(size=(50, 3))])
    assert fit_bias(more, unknown, task).bias == pytest.approx(fit_bias(logits, labels, task).bias, abs=1e-5)
    if task == "multiclass":  # nor do images of none of the classes and of several
        unknown[-50:-25], unknown[-25:] = 0, [1, 1, 0]
        unknown[: len(labels)][labels == 0] = np.nan  # what one class says of the others need not be written down
        assert fit_bias(more, unknown, task).bias == pytest.approx(fit_bias(logits, labels, task).bias, abs=1e-5)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_what_cannot_be_fitted_stays_finite(task):
    logits, labels = draw(task, images=200)
    labels[:, 2] = 0  # no image of the last class
    labels[:, 0] = np.where(labels[:, 1] == 1, 0, 1) if task == "multiclass" else labels[:, 0]
    calibration = fit_bias(logits, labels, task)
    assert calibration.bias[2] == 0
    assert np.isfinite(calibration(logits)).all()
    assert 0.01 <= fit_temperature(labels * 2 - 1, labels, task).temperature < 0.1  # perfect
    assert 10 < fit_temperature(1 - 2 * labels, labels, task).temperature < 101  # wrong throughout


def test_what_is_wrong_is_named():
    logits, labels = draw("multilabel", images=10)
    with pytest.raises(BundleError, match="calibration: expected known labels to fit on, found none"):
        fit_bias(logits, np.full_like(labels, np.nan), "multilabel")
    logits[3, 1] = np.inf
    with pytest.raises(BundleError, match="calibration: 1 images have logits that are not finite"):
        fit_bias(logits, labels, "multilabel")
