from dataclasses import astuple, replace

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import METRICS, MIN_SUPPORT, bootstrap, classification_metrics, paired_bootstrap, resampling
from cleft_bundle.metrics.classification import ClassificationMetrics
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
        values = {name: draws[index] for name, draws in drawn.draws.items() if not np.isnan(draws[index])}
        assert values == pytest.approx(expected, abs=1e-9)


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
