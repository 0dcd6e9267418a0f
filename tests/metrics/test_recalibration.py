import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import calibration_line, decision_curve


def draw(slope=0.6, intercept=-0.3, images=3000, seed=0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=images) * 1.5
    labels = (rng.random(images) < expit(intercept + slope * odds)).astype(float)
    return expit(odds), labels


def test_the_line_is_the_logistic_regression_of_an_independent_library():
    scores, labels = draw()
    known = np.random.default_rng(1).random(3000) < 0.9
    line = calibration_line(scores, np.where(known, labels, np.nan))
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit(scores[known])[:, None], labels[known])
    assert line.slope.value == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert line.intercept.value == pytest.approx(model.intercept_[0], abs=1e-5)
    level = expit(logit(scores[known]) + line.in_the_large.value)
    assert level.mean() == pytest.approx(labels[known].mean(), abs=1e-9)  # what its likelihood equation says
    assert line.slope.n_images == known.sum()
    assert line.slope.low < 0.6 < line.slope.high
    assert line.intercept.low < -0.3 < line.intercept.high


def test_the_interval_is_that_of_the_information_where_the_model_holds():
    scores, labels = draw(1.0, 0.0, 20_000)
    line = calibration_line(scores, labels)
    odds, weight = logit(scores), scores * (1 - scores)
    design = np.column_stack([np.ones(len(odds)), odds])
    deviation = np.sqrt(np.diag(np.linalg.inv((design * weight[:, None]).T @ design)))
    for estimate, expected in ((line.intercept, deviation[0]), (line.slope, deviation[1])):
        assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * expected, rel=0.05)


def test_copies_of_images_are_no_news_when_patients_are_known():
    scores, labels = draw(images=200)
    one = calibration_line(scores, labels).slope
    four = calibration_line(np.tile(scores, 4), np.tile(labels, 4), np.tile(np.arange(200), 4)).slope
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high), abs=1e-6)
    assert four.n_patients == 200


def test_what_has_no_line_is_nan():
    scores = np.linspace(0.1, 0.9, 40)
    for labels in ((scores > 0.5).astype(float), np.zeros(40)):
        line = calibration_line(scores, labels)
        assert np.isnan(line.slope.value)
        assert not line.slope.is_known
    constant = calibration_line(np.full(40, 0.5), np.tile([0.0, 1], 20))
    assert np.isnan(constant.slope.value)
    assert constant.in_the_large.value == pytest.approx(0)
    few = calibration_line(*draw(images=20))
    assert not few.slope.is_known
    sure = calibration_line(np.tile([0.0, 1], 50), np.r_[np.tile([0.0, 1], 48), 1, 0, 1, 0])
    assert np.isfinite(sure.slope.value)
    with pytest.raises(BundleError, match=r"expected probabilities, got scores from -1 to 0\.5"):
        calibration_line(np.array([-1, 0.5]), np.array([0.0, 1]))


def test_net_benefit_is_that_of_the_formula():
    scores, labels = draw(images=500)
    curve = decision_curve(scores, labels, [0.05, 0.2, 0.5])
    for number, threshold in enumerate([0.05, 0.2, 0.5]):
        odds = threshold / (1 - threshold)
        called = scores >= threshold
        expected = (called & (labels == 1)).sum() / 500 - odds * (called & (labels == 0)).sum() / 500
        assert curve.model[number] == pytest.approx(expected)
        assert curve.treat_all[number] == pytest.approx(labels.mean() - odds * (1 - labels.mean()))
    assert (curve.treat_none == 0).all()


def test_a_perfect_score_is_worth_the_prevalence_at_every_threshold():
    labels = np.r_[np.ones(30), np.zeros(70), np.full(5, np.nan)]
    curve = decision_curve(np.where(np.nan_to_num(labels) == 1, 1.0, 0.0), labels)
    np.testing.assert_allclose(curve.model, 0.3)
    assert len(curve.thresholds) == 99
    with pytest.raises(BundleError, match="expected thresholds between 0 and 1"):
        decision_curve(labels[:100], labels[:100], [0.0, 0.5])
    with pytest.raises(BundleError, match="expected known labels, found none"):
        decision_curve(np.zeros(3), np.full(3, np.nan))
