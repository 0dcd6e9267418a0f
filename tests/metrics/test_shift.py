import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ks_2samp

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import embedding_shift, shift


def test_numbers_are_compared_by_the_formula_and_by_scipy():
    rng = np.random.default_rng(0)
    children, adults = rng.normal(5, 3, 200), rng.normal(50, 15, 300)
    found = shift([*children, None, np.nan], adults)
    spread = np.sqrt((children.var(ddof=1) + adults.var(ddof=1)) / 2)
    assert found.standardised_difference == pytest.approx((adults.mean() - children.mean()) / spread)
    assert found.ks_distance == pytest.approx(ks_2samp(children, adults).statistic)
    assert (found.n_reference, found.n_other) == (200, 300)
    assert (found.unknown_reference, found.unknown_other) == pytest.approx((2 / 202, 0))
    assert np.isnan(found.total_variation)
    assert shift(children, children).ks_distance == 0


def test_categories_are_compared_by_their_shares():
    found = shift(["PA"] * 6 + ["AP"] * 4 + [None], ["PA"] * 3 + ["AP"] * 4 + ["LL"] * 3)
    assert found.total_variation == pytest.approx((0.3 + 0 + 0.3) / 2)
    assert np.isnan(found.standardised_difference)
    assert shift(["PA"], ["AP"]).total_variation == 1


def test_nothing_known_is_nan_and_mixed_kinds_are_an_error():
    empty = shift([None, None], [1.0, 2.0])
    assert (empty.n_reference, empty.unknown_reference) == (0, 1)
    assert np.isnan([empty.standardised_difference, empty.ks_distance, empty.total_variation]).all()
    assert shift([3, 3], [3, 3]).standardised_difference == 0
    with pytest.raises(BundleError, match="expected numbers or categories, got some of both"):
        shift([1.0], ["PA"])


def test_embeddings_alike_cannot_be_told_apart_and_moved_ones_can():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 300, 8))
    owners = np.arange(300) // 2
    alike = embedding_shift(first, second, owners, owners + 1000)
    assert 0.4 < alike.auroc < 0.6
    moved = embedding_shift(first, second + 1.5, owners, owners + 1000)
    assert moved.auroc > 0.95
    assert (moved.n_reference, moved.n_other) == (300, 300)
    assert alike.frechet < 1 < 8 * 1.5**2 - 3 < moved.frechet


def test_the_frechet_distance_is_that_of_the_formula():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(100, 5)), rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)) + 1
    means = first.mean(axis=0), second.mean(axis=0)
    spreads = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(spreads) - 2 * sqrtm(spreads[0] @ spreads[1]).real)
    found = embedding_shift(first, second, np.arange(100), np.arange(100, 180))
    assert found.frechet == pytest.approx(expected)
    assert embedding_shift(first, first, np.arange(100), np.arange(100)).frechet == pytest.approx(0, abs=1e-6)


def test_embeddings_that_do_not_fit_are_named():
    with pytest.raises(BundleError, match=r"expected embeddings of one width, two or more, got \(3, 2\) and \(3, 4\)"):
        embedding_shift(np.zeros((3, 2)), np.zeros((3, 4)), range(3), range(3))
    assert np.isnan(embedding_shift(np.eye(3), np.eye(3), range(3), range(3, 6)).auroc)
