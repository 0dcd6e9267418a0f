from dataclasses import astuple, replace

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import (
    METRICS,
    MIN_SUPPORT,
    bootstrap,
    classification_metrics,
    holm,
    p_text,
    paired_bootstrap,
    resampling,
)
from cleft_bundle.metrics.classification import ClassificationMetrics
from cleft_bundle.metrics.intervals import Basis, from_draws, p_value
from cleft_bundle.metrics.resampling import resample
from tests.metrics.predictions import make


def slow_draws(predictions, resamples, seed):
    """Copy the images of each drawn patient, one resample after the other."""
    rng = np.random.default_rng(seed)
    patients = sorted(set(predictions.patients))
    rows_of = [np.flatnonzero(predictions.patients == patient) for patient in patients]
    for _ in range(resamples):
        rows = np.concatenate([rows_of[number] for number in rng.integers(0, len(patients), len(patients))])
        names = [str(index) for index in range(len(rows))]
        parts = {"scores": predictions.scores[rows], "labels": predictions.labels[rows], "names": names}
        yield classification_metrics(replace(predictions, **parts, patients=names, groups={}))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_what_copying_images_gives(task, ties):
    predictions = make(1, images=70, patients=12, task=task, ties=ties)
    drawn = resample(ClassificationMetrics(predictions), predictions.patient_numbers(), 60, seed=5)
    assert drawn.values == classification_metrics(predictions)
    for index, expected in enumerate(slow_draws(predictions, 60, seed=5)):
        values = {name: draws[index] for name, draws in drawn.draws.items()}
        for name, value in values.items():
            assert np.isnan(value) or value == pytest.approx(expected[name], abs=1e-9)
            mean = name.endswith("_macro")
            assert not np.isnan(value) or mean or name == "balanced_accuracy" or name not in expected


def test_results_depend_on_the_seed_only_and_not_on_how_many_resamples_fit_into_memory(monkeypatch):
    predictions = make(2)
    first = bootstrap(predictions, resamples=50, seed=3)
    monkeypatch.setattr(resampling, "CELLS", 7 * len(predictions))
    again, other = (bootstrap(predictions, resamples=50, seed=seed) for seed in (3, 4))
    for name, interval in first.items():
        assert astuple(again[name])[:3] == pytest.approx(astuple(interval)[:3], abs=1e-12)
        assert other[name].low != interval.low


def test_intervals_surround_the_value_and_count_what_is_known():
    predictions = make(3, images=400, patients=150)
    intervals = bootstrap(predictions, resamples=200)
    assert intervals.keys() == classification_metrics(predictions).keys()
    assert all(i.low <= i.value <= i.high for i in intervals.values())
    known = ~np.isnan(predictions.labels[:, 0])
    assert intervals["auroc/c0"].n_images == known.sum()
    assert intervals["auroc/c0"].n_patients == len(set(predictions.patients[known]))
    wider = bootstrap(predictions, ["auroc"], resamples=200, confidence=0.99)["auroc/c0"]
    assert wider.high - wider.low > intervals["auroc/c0"].high - intervals["auroc/c0"].low


def test_images_of_one_patient_add_nothing_when_they_are_all_alike():
    one = make(4, images=60, patients=10**6, unknown=0)
    names = [f"{name} {copy}" for copy in range(5) for name in one.names]
    parts = {"scores": np.tile(one.scores, (5, 1)), "labels": np.tile(one.labels, (5, 1)), "names": names}
    copied = replace(one, **parts, patients=np.tile(one.patients, 5))
    first, second = (bootstrap(part, ["auroc"], resamples=100)["auroc_macro"] for part in (one, copied))
    assert (second.low, second.high) == pytest.approx((first.low, first.high))
    independent = bootstrap(replace(copied, patients=names), ["auroc"], resamples=100)["auroc_macro"]
    assert independent.high - independent.low < 0.7 * (first.high - first.low)


def test_too_few_patients_on_one_side_have_a_value_but_no_interval():
    predictions = make(5, images=200, patients=200, unknown=0)
    labels = predictions.labels.copy()
    labels[:, 0] = 0
    labels[: MIN_SUPPORT - 1, 0] = 1
    intervals = bootstrap(replace(predictions, labels=labels, patients=predictions.names), resamples=50)
    for metric in ("auroc", "sensitivity", "f1", "balanced_accuracy"):
        assert not intervals[f"{metric}/c0"].is_known
        assert intervals[f"{metric}/c0"].value >= 0
    assert intervals["specificity/c0"].is_known
    assert intervals["accuracy/c0"].is_known


def test_a_checkpoint_does_not_differ_from_itself_and_order_plays_no_part():
    predictions = make(6)
    shuffled = predictions.select(np.random.default_rng(0).permutation(len(predictions)))
    for result in paired_bootstrap(predictions, shuffled, resamples=50).values():
        assert result.value == pytest.approx(0, abs=1e-12)
        assert result.p_value == 1


def test_a_better_checkpoint_is_told_from_a_worse_one():
    worse = make(7, images=300, patients=150)
    better = replace(worse, scores=np.where(np.nan_to_num(worse.labels) == 1, 0.4 + worse.scores * 0.6, worse.scores))
    compared = paired_bootstrap(better, worse, ["auroc"], resamples=300)
    alone = bootstrap(better, ["auroc"], resamples=300), bootstrap(worse, ["auroc"], resamples=300)
    for name, result in compared.items():
        assert result.first == alone[0][name].value
        assert result.second == alone[1][name].value
        assert result.value == result.first - result.second
        assert result.low > 0
        assert result.p_value < 0.01
        assert result.p_is_bound
        assert result.high - result.low < alone[0][name].high - alone[1][name].low
    mirrored = paired_bootstrap(worse, better, ["auroc"], resamples=300)["auroc_macro"]
    assert (mirrored.low, mirrored.high) == pytest.approx((-compared["auroc_macro"].high, -compared["auroc_macro"].low))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.select(np.arange(9)), "1 images are in one only, the first: image 9"),
        (lambda p: replace(p, labels=1 - p.labels), "10 images differ in labels or patient, the first: image 0"),
        (lambda p: replace(p, class_names=["x", "y", "z"]), r"class_names differs: \['c0', 'c1', 'c2'\] and"),
    ],
)
def test_only_the_same_images_are_compared(change, message):
    predictions = make(images=10, unknown=0)
    with pytest.raises(BundleError, match=f"^paired comparison: {message}"):
        paired_bootstrap(predictions, change(predictions), METRICS, 10)


def test_a_draw_without_a_rare_class_has_no_mean_rather_than_one_of_fewer_classes():
    predictions = make(8, images=300, patients=300, unknown=0)
    labels, scores = predictions.labels.copy(), predictions.scores.copy()
    labels[:, 2] = 0
    labels[:2, 2] = 1  # two patients have the third class,
    scores[:, 2] = 0.5 + 0.4 * labels[:, 2]  # which is always found
    rare = replace(predictions, labels=labels, scores=scores)
    drawn = resample(ClassificationMetrics(rare, ["auroc"]), rare.patient_numbers(), 200)
    parts = np.array([drawn.draws[f"auroc/c{number}"] for number in range(3)])
    lost = np.isnan(parts[2])
    assert 10 < lost.sum() < 60
    np.testing.assert_array_equal(np.isnan(drawn.draws["auroc_macro"]), lost)
    np.testing.assert_allclose(drawn.draws["auroc_macro"][~lost], parts[:, ~lost].mean(axis=0))
    assert drawn.basis["auroc_macro"].classes == ("c0", "c1", "c2")
    labels[:, 2] = 0
    absent = bootstrap(replace(rare, labels=labels), ["auroc"], resamples=20)
    assert absent["auroc_macro"].classes == ("c0", "c1")


def test_means_are_compared_over_the_classes_that_are_defined_in_both():
    first = make(9, images=300, patients=300, unknown=0)
    scores = first.scores.copy()
    scores[:, 1] = 0.1  # calls none positive, so that there is no precision
    second = replace(first, scores=scores)
    result = paired_bootstrap(first, second, ["precision"], resamples=50)
    assert result["precision_macro"].classes == ("c0", "c2")
    assert result["precision_macro"].value == 0
    assert "precision/c1" not in result


def test_p_and_interval_never_disagree():
    rng = np.random.default_rng(0)
    basis = Basis(100, 30, 30.0, largest=None)
    for _ in range(200):
        draws = rng.normal(rng.uniform(-3, 3), 1, 999)
        if rng.random() < 0.3:
            draws = np.round(draws)  # many draws alike, some at zero
        level, is_bound = p_value(draws, basis)
        for offset, left_out in ((1e-4, True), (-1e-4, False)):
            interval = from_draws(float(draws.mean()), draws, basis, max(0.0, 1 - (level + offset)))
            assert is_bound or level + offset >= 1 or (interval.low > 0 or interval.high < 0) is left_out
    test_level, is_bound = p_value(np.full(999, 1.0), basis)
    assert is_bound
    assert 0.002 < test_level < 0.01


def test_few_draws_cannot_give_a_small_p_and_it_reads_so():
    basis = Basis(1000, 1000, 1000.0, largest=None)
    level, is_bound = p_value(np.linspace(1, 2, 499), basis)
    assert is_bound
    assert level == pytest.approx(2 / 500, rel=0.05)
    assert p_text(level, is_bound) == "< 0.005"
    assert p_text(0.0314) == "0.031"
    assert p_text(0.0314, is_bound=True) == "< 0.032"
    assert p_text(0.0004) == "< 0.001"
    assert p_text(float("nan")) == "-"


def test_under_no_difference_p_is_spread_evenly():
    below = 0
    for seed in range(200):
        one = make(seed, images=60, patients=60, classes=1, unknown=0)
        noise = np.random.default_rng(seed).normal(size=(2, *one.scores.shape))
        both = [replace(one, scores=1 / (1 + np.exp(-one.labels - part))) for part in noise]
        below += paired_bootstrap(*both, ["auroc"], resamples=200, seed=seed)["auroc/c0"].p_value < 0.05
    assert 2 <= below <= 20  # of 200, where 10 are expected


def test_holm_is_the_step_down_rule():
    given = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": float("nan")}
    found = holm(given)
    assert {name: found[name] for name in "abcd"} == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert np.isnan(found["e"])
    assert holm({"x": 0.7, "y": 0.9}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}
