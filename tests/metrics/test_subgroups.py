import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import MIN_SUPPORT, bootstrap, classification_metrics, prompt_spread, subgroup_metrics
from tests.metrics.predictions import make

SEX = ["F", "M", "F", "M", None] * 80
VIEW = ["CC"] * 200 + ["MLO"] * 192 + ["ML"] * 8


def predictions(**kwargs):
    return make(images=400, patients=150, groups={"sex": SEX, "view": VIEW, "race": [None] * 400}, **kwargs)


def test_each_value_has_the_metrics_of_its_images():
    whole = predictions()
    results = subgroup_metrics(whole, resamples=50)
    assert results.keys() == {"sex", "view"}
    assert results["sex"].n_unknown == 80
    for group, values in (("sex", SEX), ("view", VIEW)):
        for value, intervals in results[group].intervals.items():
            rows = np.array([own == value for own in values])
            expected = classification_metrics(whole.select(rows))
            assert {k: i.value for k, i in intervals.items() if not np.isnan(i.value)} == pytest.approx(expected)
            known = ~np.isnan(whole.labels[rows, 0])
            assert intervals["accuracy/c0"].n_images == known.sum()
            assert intervals["accuracy/c0"].n_patients == len(set(whole.patients[rows][known]))


def test_groups_too_small_are_named_and_left_out_of_the_ranking():
    results = subgroup_metrics(predictions(), ["auroc", "accuracy"], resamples=50)
    assert results["view"].too_small.keys() == set(results["view"].intervals["ML"])
    assert set(map(tuple, results["view"].too_small.values())) == {("ML",)}
    assert {gap.best for gap in results["view"].gaps.values()} <= {"CC", "MLO"}
    for interval in results["view"].intervals["ML"].values():
        assert interval.n_patients < MIN_SUPPORT
        assert not interval.is_known
    assert results["sex"].too_small == {}


def test_gaps_are_differences_of_the_best_and_the_worst():
    results = subgroup_metrics(predictions(), ["auroc", "ece"], resamples=100)["sex"]
    for metric, gap in results.gaps.items():
        values = {value: intervals[metric].value for value, intervals in results.intervals.items()}
        by_value = sorted(values, key=values.get, reverse=not metric.startswith("ece"))
        assert [gap.best, gap.worst] == by_value
        assert gap.difference.value == pytest.approx(abs(values["F"] - values["M"]))
        assert gap.difference.low < gap.difference.value < gap.difference.high


def test_a_value_that_all_images_have_is_the_whole():
    whole = make(images=100, groups={"sex": ["F"] * 100})
    results = subgroup_metrics(whole, ["auroc"], resamples=50, seed=2)["sex"]
    assert results.intervals["F"] == bootstrap(whole, ["auroc"], resamples=50, seed=2)
    assert results.gaps == {}


def test_spread_over_prompts():
    variants = [make(seed) for seed in range(4)]
    values = [classification_metrics(variant)["auroc_macro"] for variant in variants]
    spread = prompt_spread(variants)["auroc_macro"]
    assert (spread.mean, spread.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (spread.low, spread.high, spread.n) == (min(values), max(values), 4)
    with pytest.raises(BundleError, match="expected two variants or more, got 1"):
        prompt_spread(variants[:1])
    with pytest.raises(BundleError, match="not computed on the same images"):
        prompt_spread([variants[0], variants[1].select(np.arange(5))])
