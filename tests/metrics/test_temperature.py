import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import fit_bias, fit_temperature


def draw(task, temperature=3.0, bias=(0.5, -1.0, 0.2), images=4000, seed=0):
    """Logits that a temperature and biases make exactly right."""
    rng = np.random.default_rng(seed)
    right = rng.normal(size=(images, 3)) * 2
    if task == "multiclass":
        labels = np.eye(3)[[rng.choice(3, p=row) for row in softmax(right, axis=1)]]
    else:
        labels = (rng.random(right.shape) < expit(right)).astype(float)
    return (right - np.array(bias)) * temperature, labels


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
    calibration = fit_bias(logits, labels, "multilabel", penalised=False)
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
    assert 0.01 <= fit_temperature(labels * 2 - 1, labels, task, penalised=False).temperature < 0.1  # perfect
    assert 0.1 < fit_temperature(labels * 2 - 1, labels, task).temperature < 0.4
    assert 10 < fit_temperature(1 - 2 * labels, labels, task).temperature < 101  # wrong throughout


def test_what_is_wrong_is_named():
    logits, labels = draw("multilabel", images=10)
    with pytest.raises(BundleError, match="calibration: expected known labels to fit on, found none"):
        fit_bias(logits, np.full_like(labels, np.nan), "multilabel")
    logits[3, 1] = np.inf
    with pytest.raises(BundleError, match="calibration: 1 images have logits that are not finite"):
        fit_bias(logits, labels, "multilabel")


def test_the_penalty_is_that_of_the_formula_and_the_interval_that_of_the_likelihood():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=40) * 3
    labels = (rng.random(40) < expit(truth)).astype(float)[:, None]
    logits = truth[:, None] / 3
    positive, negative = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (positive + 0.1) / (positive + 0.2), 0.1 / (negative + 0.2))
    grid = np.exp(np.linspace(np.log(0.02), np.log(50), 4001))
    value = (np.logaddexp(0, logits / grid) - target * logits / grid).sum(axis=0) + np.log(grid) ** 2 / 2
    found = fit_temperature(logits, labels, "multilabel")
    assert found.temperature == pytest.approx(grid[value.argmin()], rel=2e-3)
    effect = max(1.0, _variance_ratio(logits[:, 0] / found.temperature, target[:, 0]))
    inside = grid[value < value.min() + effect * t.ppf(0.975, 39) ** 2 / 2]
    assert (found.low, found.high) == pytest.approx((inside.min(), inside.max()), rel=1e-2)
    assert found.n_images == 40


def _variance_ratio(odds, target):
    """Squares of the slopes by the second derivative, of a derivative by the logarithm of 1 / temperature."""
    chance = expit(odds)
    slopes = (chance - target) * odds
    return (slopes**2).sum() / (slopes.sum() + (chance * (1 - chance) * odds**2).sum())


def test_copies_of_images_make_the_interval_no_narrower_when_patients_are_known():
    logits, labels = draw("multilabel", images=60)
    one = fit_temperature(logits, labels, "multilabel")
    copies = np.tile(logits, (8, 1)), np.tile(labels, (8, 1))
    alone = fit_temperature(*copies, "multilabel")
    owned = fit_temperature(*copies, "multilabel", np.tile(np.arange(60), 8))
    assert np.log(alone.high / alone.low) < 0.5 * np.log(one.high / one.low)
    assert np.log(owned.high / owned.low) == pytest.approx(np.log(one.high / one.low), rel=0.25)


def test_few_separable_images_do_not_run_to_the_bound():
    logits = np.linspace(-1, 1, 20)[:, None]
    labels = (logits > 0).astype(float)
    assert fit_temperature(logits, labels, "multilabel", penalised=False).temperature < 0.02
    found = fit_temperature(logits, labels, "multilabel")
    assert found.temperature > 0.1
    scores = found(logits)
    assert len(np.unique(scores.astype(np.float32))) == 20
    for fit in (fit_bias, fit_temperature):
        assert np.isfinite(fit(logits, labels, "multilabel").bias).all()


def test_the_temperature_is_one_that_a_classifier_can_keep():
    logits, labels = draw("multiclass", images=300)
    found = fit_bias(logits, labels, "multiclass")
    assert found.temperature == float(np.float32(found.temperature))
    assert found.bias == [float(np.float32(one)) for one in found.bias]
