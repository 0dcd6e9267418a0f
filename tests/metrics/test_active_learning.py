import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as scipy_entropy

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import STRATEGIES, rank_unlabelled
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


def greedy_by_hand(points, labelled):
    """Algorithm 1 of Sener and Savarese with all distances at once."""
    table = np.linalg.norm(points[:, None] - points[None], axis=2)
    centres = list(np.flatnonzero(labelled))
    order, distances = [], []
    while len(centres) < len(points):
        left = [place for place in range(len(points)) if place not in centres]
        if centres:
            far = [min(table[place, centre] for centre in centres) for place in left]
            best = int(np.argmax(far))
        else:
            far = list(np.linalg.norm(points - points.mean(axis=0), axis=1))
            best = int(np.argmin(far))
        order.append(left[best])
        distances.append(far[best])
        centres.append(left[best])
    return order, distances


@given(CLOUDS, MASKS)
def test_coreset_is_the_greedy_algorithm_and_ties_go_to_the_first(points, mask):
    labelled = np.array(mask[: len(points)])
    order, distances = coreset(points, labelled)
    expected, far = greedy_by_hand(points, labelled)
    assert order.tolist() == expected
    np.testing.assert_allclose(distances, far)
    assert (np.diff(distances[0 if labelled.any() else 1 :]) <= 1e-12).all()


def test_coreset_covers_within_twice_the_optimum():
    points = np.random.default_rng(0).normal(size=(12, 2))
    order, _ = coreset(points, np.zeros(12, bool), 3)
    table = np.linalg.norm(points[:, None] - points[None], axis=2)
    radius = table[:, order].min(axis=1).max()
    best = min(table[:, [a, b, c]].min(axis=1).max() for a in range(12) for b in range(a) for c in range(b))
    assert best <= radius <= 2 * best


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
