from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import delong, delong_comparison, delong_interval, delong_intervals, delong_test
from tests.metrics.predictions import make


def placements(scores, labels):
    """Each positive's share of negatives it beats, each negative's share of positives that beat it, ties half."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    return wins.mean(axis=1), wins.mean(axis=0)


def slow_delong(scores, labels):
    """The formula of 1988, for one or several scores: AUROCs and covariance."""
    both = [placements(column, labels) for column in scores]
    first, second = (np.array([pair[side] for pair in both]) for side in (0, 1))
    covariance = np.cov(first) / first.shape[1] + np.cov(second) / second.shape[1]
    return first.mean(axis=1), np.atleast_2d(covariance)


def slow_obuchowski(scores, labels, patients):
    """The formula of 1997, a patient at a time."""
    beaten, beating = placements(scores, labels)
    auroc = beaten.mean()
    owners, m, n = set(patients), len(beaten), len(beating)
    own = patients[labels == 1], patients[labels == 0]
    above = np.array([(beaten[own[0] == patient] - auroc).sum() for patient in owners])
    below = np.array([(beating[own[1] == patient] - auroc).sum() for patient in owners])
    i10, i01, i = len(set(own[0])), len(set(own[1])), len(owners)
    s10, s01 = i10 / ((i10 - 1) * m) * (above**2).sum(), i01 / ((i01 - 1) * n) * (below**2).sum()
    return s10 / m + s01 / n + 2 * i / (i - 1) * (above * below).sum() / (m * n)


values = st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 2.0])


@given(arrays(float, st.tuples(st.just(2), st.integers(4, 30)), elements=values), st.data())
def test_auroc_variance_and_test_are_those_of_the_formula(scores, data):
    count = scores.shape[1]
    rest = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=count - 4, max_size=count - 4))
    labels = np.array([1.0, 1, 0, 0, *rest])
    auroc, covariance = slow_delong(scores, labels)
    for index in (0, 1):
        computed = delong(scores[index], labels)
        assert computed == pytest.approx((auroc[index], covariance[index, index]), abs=1e-9)
        assert computed[0] == pytest.approx(roc_auc_score(labels, scores[index]), abs=1e-9)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    result = delong_test(scores[0], scores[1], labels)
    assert result.difference == pytest.approx(auroc[0] - auroc[1], abs=1e-9)
    if variance > 1e-9:
        freedom = min(labels.sum(), (1 - labels).sum()) - 1
        expected = 2 * t.sf(abs(auroc[0] - auroc[1]) / np.sqrt(variance), freedom)
        assert result.p_value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_images_of_one_patient_are_taken_together(seed):
    predictions = make(seed, images=90, patients=25, ties=seed % 2 == 0, unknown=0)
    for scores, labels in zip(predictions.scores.T, predictions.labels.T, strict=True):
        auroc, variance = delong(scores, labels, predictions.patients)
        assert variance == pytest.approx(slow_obuchowski(scores, labels, predictions.patients))
        assert auroc == delong(scores, labels)[0]
        assert delong(scores, labels, np.arange(90)) == pytest.approx(delong(scores, labels))


def test_copies_of_images_are_no_news_when_patients_are_known():
    one = make(images=60, unknown=0)
    scores, labels, owners = one.scores[:, 0], one.labels[:, 0], np.arange(60)
    auroc, variance = delong(np.tile(scores, 4), np.tile(labels, 4), np.tile(owners, 4))
    assert (auroc, variance) == pytest.approx(delong(scores, labels))
    assert delong(np.tile(scores, 4), np.tile(labels, 4))[1] < variance / 3


def test_unknown_labels_are_left_out_and_the_interval_counts_the_rest():
    predictions = make(1, images=200, patients=80)
    scores, labels = predictions.scores[:, 0], predictions.labels[:, 0]
    known = ~np.isnan(labels)
    interval = delong_interval(scores, labels, predictions.patients)
    assert interval == delong_interval(scores[known], labels[known], predictions.patients[known])
    assert 0 < interval.low < interval.value < interval.high < 1
    assert (interval.n_images, interval.n_patients) == (known.sum(), len(set(predictions.patients[known])))


def test_scores_that_rank_alike_do_not_differ():
    predictions = make(unknown=0)
    result = delong_test(predictions.scores[:, 0], 3 * predictions.scores[:, 0], predictions.labels[:, 0])
    assert (result.difference, result.p_value) == (0, 1)


def test_an_auroc_of_one_has_an_interval():
    labels = np.repeat([0.0, 1.0], 20)
    interval = delong_interval(labels, labels)
    assert (interval.value, interval.high) == (1, 1)
    assert 0.7 < interval.low < 0.9


def test_one_patient_is_not_enough():
    with pytest.raises(BundleError, match=r"expected two patients or more .* got 1 with and 3 without"):
        delong(np.arange(4.0), np.array([1.0, 0, 0, 0]))


def test_each_class_is_tested_and_those_of_few_patients_have_no_p():
    first, second = make(0, images=200, patients=90), make(1, images=200, patients=90)
    labels = first.labels.copy()
    labels[:, 1] = 0
    labels[[3, 90, 150], 1] = 1
    labels[:, 2] = 0
    first = replace(first, labels=labels)
    second = replace(first, scores=second.scores)
    order = np.random.default_rng(0).permutation(200)
    found = delong_comparison(first, second.select(order))
    expected = delong_test(first.scores[:, 0], second.scores[:, 0], labels[:, 0], first.patients)
    assert found["c0"] == expected
    assert np.isnan([found["c1"].p_value, found["c1"].low]).all()
    assert np.isfinite(found["c1"].difference)
    assert "c2" not in found
    intervals = delong_intervals(first)
    assert intervals["c0"] == delong_interval(first.scores[:, 0], labels[:, 0], first.patients)
    assert not intervals["c1"].is_known
    assert "c2" not in intervals


def test_aurocs_that_differ_and_do_not_vary_have_no_p_rather_than_zero():
    labels = np.repeat([0.0, 1], 20)
    result = delong_test(labels, 1 - labels, labels)
    assert result.difference == 1
    assert np.isnan([result.low, result.high, result.p_value]).all()
