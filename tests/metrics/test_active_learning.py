import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as scipy_entropy

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import STRATEGIES, active_learning, rank_unlabelled
from cleft_bundle.metrics.active_learning import coreset, entropy, margin

COORDINATES = st.floats(-5, 5).map(lambda value: round(value, 2))
CLOUDS = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=COORDINATES))
MASKS = st.lists(st.booleans(), min_size=12, max_size=12)


def softmax_rows(values):
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@given(CLOUDS)
def test_entropy_is_scipys_and_in_0_to_1(values):
    rows = softmax_rows(values)
    found = entropy(rows, "multiclass")
    np.testing.assert_allclose(found, [scipy_entropy(row, base=2) for row in rows], atol=1e-9)
    apart = 1 / (1 + np.exp(-values))
    both = np.mean([[scipy_entropy([p, 1 - p], base=2) for p in row] for row in apart], axis=1)
    np.testing.assert_allclose(entropy(apart, "multilabel"), both, atol=1e-9)


def test_entropy_and_margin_at_their_ends():
    sure, torn = np.eye(3)[:1], np.full((1, 3), 1 / 3)
    for score in (entropy, margin):
        np.testing.assert_allclose(score(np.vstack([sure, torn]), "multiclass"), [0, 1], atol=1e-12)
        np.testing.assert_allclose(score(np.array([[0.0, 1.0], [0.5, 0.5]]), "multilabel"), [0, 1], atol=1e-12)


def test_margin_is_between_the_two_highest_and_of_the_closest_finding():
    np.testing.assert_allclose(margin(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), "multiclass"), [0.8, 0.3])
    np.testing.assert_allclose(margin(np.array([[0.9, 0.4], [0.05, 0.99]]), "multilabel"), [0.8, 0.1])


def gains_by_hand(points, covered):
    """For every point, by how much it lowers the mean distance to the nearest of those covered."""
    table = np.linalg.norm(points[:, None] - points[None], axis=2)
    radius = 2 * np.linalg.norm(points - points.mean(axis=0), axis=1).max()
    shares = table / radius if radius else table
    nearest = np.min([np.ones(len(points)), *(shares[place] for place in covered)], axis=0)
    return np.array([(nearest - np.minimum(nearest, row)).mean() for row in shares])


@given(CLOUDS, MASKS)
def test_coreset_takes_the_highest_gain_each_time(points, mask):
    labelled = np.array(mask[: len(points)])
    order, gains = coreset(points, labelled)
    covered = np.flatnonzero(labelled).tolist()
    for chosen, gain in zip(order, gains, strict=True):
        expected = gains_by_hand(points, covered)
        left = [place for place in range(len(points)) if place not in covered]
        assert chosen in left
        assert gain == pytest.approx(expected[chosen], abs=1e-6)
        assert gain == pytest.approx(expected[left].max(), abs=1e-6)
        covered.append(int(chosen))
    assert (np.diff(gains) <= 0).all()
    assert sorted(covered) == list(range(len(points)))


def test_coreset_leaves_outliers_and_repetitions_for_the_end():
    rng = np.random.default_rng(0)
    kinds = np.repeat([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]], 20, axis=0) + rng.normal(scale=0.5, size=(60, 2))
    points = np.vstack([kinds, [[30.0, 30.0]]])
    order, _ = coreset(points, np.zeros(61, bool), 4)
    assert sorted(place // 20 for place in order[:3]) == [0, 1, 2], "one of each kind first"
    first_is_labelled = np.arange(61) == order[0]
    assert sorted(place // 20 for place in coreset(points, first_is_labelled, 2)[0]) == sorted(order[1:3] // 20)


def test_coreset_of_many_images_chooses_like_that_of_all(monkeypatch):
    points = np.random.default_rng(0).normal(size=(400, 3))
    order, _ = coreset(points, np.zeros(400, bool), 10)
    monkeypatch.setattr(active_learning, "REPRESENTED", 200)
    few, _ = coreset(points, np.zeros(400, bool), 10)

    def mean_distance(chosen):
        return np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1).mean()

    random = np.random.default_rng(1).permutation(400)[:10]
    assert mean_distance(order) <= mean_distance(few) < 0.95 * mean_distance(random)


def ranked(strategy, probabilities, labelled, task="multiclass", **options):
    names = [f"image {number}" for number in range(len(probabilities))]
    return rank_unlabelled(strategy, probabilities, probabilities, labelled, task, names=names, **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_unlabelled_once_each_and_no_other(strategy):
    rows = softmax_rows(np.random.default_rng(0).normal(size=(20, 3)))
    labelled = np.arange(20) % 4 == 0
    order, scores = ranked(strategy, rows, labelled)
    assert sorted(order) == np.flatnonzero(~labelled).tolist()
    assert (np.diff(scores) <= 1e-12).all()
    few, best = ranked(strategy, rows, labelled, count=4)
    assert few.tolist() == order[:4].tolist()
    np.testing.assert_allclose(best, scores[:4])
    assert [len(part) for part in ranked(strategy, rows, np.ones(20, bool))] == [0, 0]
    assert ranked(strategy, rows[:1], np.zeros(1, bool))[0].tolist() == [0]


@pytest.mark.parametrize("strategy", ["entropy", "margin", "coreset"])
def test_equal_scores_keep_their_order(strategy):
    rows = np.tile([[0.6, 0.4]], (5, 1))
    assert ranked(strategy, rows, np.array([False, True, False, False, False]))[0].tolist() == [0, 2, 3, 4]


def test_random_depends_on_its_seed_alone():
    rows = np.full((30, 2), 0.5)
    orders = [ranked("random", rows, np.zeros(30, bool), seed=seed)[0].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_not_finite_is_named(strategy):
    rows = np.full((6, 2), 0.5)
    rows[[1, 4]] = np.nan
    with pytest.raises(BundleError, match=r"probabilities of 2 images are not finite: image 1, image 4$"):
        ranked(strategy, rows, np.zeros(6, bool))
    with pytest.raises(BundleError, match=r"embeddings of 6 images are not finite: image 0, image 1, image 2, \.\.\.$"):
        rank_unlabelled(strategy, np.full((6, 2), 0.5), np.full((6, 3), np.inf), np.zeros(6, bool), "multiclass",
                        names=[f"image {number}" for number in range(6)])  # fmt: skip


def test_wrong_arguments_are_named():
    rows, none = np.full((2, 2), 0.5), np.zeros(2, bool)
    with pytest.raises(BundleError, match="strategy: expected one of entropy, margin, coreset, random, got 'best'"):
        ranked("best", rows, none)
    with pytest.raises(BundleError, match="task: expected one of multiclass, multilabel, got 'both'"):
        ranked("entropy", rows, none, task="both")
    with pytest.raises(BundleError, match=r"of 3 images, got the shapes \(2, 2\), \(3, 2\), \(2,\)"):
        rank_unlabelled("entropy", rows, np.ones((3, 2)), none, "multiclass", names=["a", "b", "c"])
