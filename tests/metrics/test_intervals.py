import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from cleft_bundle.metrics.intervals import MIN_SUPPORT, Basis, from_draws, from_variance


@pytest.mark.parametrize("hits", [0, 3, 50, 97, 100])
def test_a_proportion_of_very_many_patients_has_the_interval_of_scipys_wilson(hits):
    share = hits / 100
    # t is the normal distribution for a support without end, but the variance is that of 100
    interval = from_variance(share, share * (1 - share) / 100, Basis(100, 100, 1e9), 0.95)
    expected = binomtest(hits, 100).proportion_ci(0.95, "wilson")
    if 0 < hits < 100:
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    else:  # no variance: the number of patients stands in
        assert interval.low <= share <= interval.high


def test_a_figure_at_its_bound_has_an_interval_that_shrinks_with_the_patients():
    few, many = (from_draws(1.0, np.ones(100), Basis(200, n, n), 0.95) for n in (20, 200))
    assert few.high == many.high == 1
    expected = t.ppf(0.975, 19) ** 2
    assert few.low == pytest.approx(20 / (20 + expected))
    assert few.low < many.low < 1


def test_a_figure_with_a_bound_of_two():
    half = from_variance(0.3, 0.01, Basis(50, 50, 50), 0.95)
    whole = from_variance(0.6, 0.04, Basis(50, 50, 50, largest=2.0), 0.95)
    assert (whole.low, whole.high) == pytest.approx((2 * half.low, 2 * half.high))


def test_draws_of_a_bounded_figure_give_its_variance():
    draws = np.random.default_rng(0).normal(0.7, 0.05, 1000)
    basis = Basis(80, 60, 30)
    assert from_draws(0.7, draws, basis, 0.9) == from_variance(0.7, draws.var() * 30 / 29, basis, 0.9)
    with_unknown = np.append(draws, np.nan)
    assert from_draws(0.7, with_unknown, basis, 0.9) == from_draws(0.7, draws, basis, 0.9)


def test_percentiles_of_an_unbounded_figure_are_widened_as_hesterberg_says():
    draws = np.random.default_rng(0).normal(size=1000)
    level = norm.cdf(np.sqrt(20 / 19) * t.ppf(0.025, 19))
    interval = from_draws(0.0, draws, Basis(20, 20, 20, largest=None), 0.95)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [level, 1 - level])))
    assert (interval.n_images, interval.n_patients) == (20, 20)


def test_too_few_patients_have_no_interval():
    for support, known in ((MIN_SUPPORT - 1, False), (MIN_SUPPORT, True)):
        assert from_draws(0.5, np.linspace(0, 1, 9), Basis(50, 50, support), 0.95).is_known is known
        assert from_variance(0.5, 0.01, Basis(50, 50, support), 0.95).is_known is known
