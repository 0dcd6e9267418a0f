from dataclasses import replace

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import (
    MIN_SUPPORT,
    Predictions,
    bootstrap,
    classification_metrics,
    prompt_spread,
    subgroup_metrics,
)
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


def hospitals():
    """Two hospitals of equal AUROC in each class; the hard class occurs in the second one only."""
    rng = np.random.default_rng(0)
    easy = np.tile([0.0, 1], 200)
    hard = np.repeat([0.0, 1], 200)
    scores = np.column_stack([0.1 + 0.8 * easy + 0.01 * rng.random(400), np.tile(rng.random(200), 2)])
    labels = np.column_stack([easy, hard])
    both = np.vstack([labels, labels])
    both[:400, 1] = 0  # nobody in the first has it
    names = [str(number) for number in range(800)]
    groups = {"hospital": ["A"] * 400 + ["B"] * 400}
    return Predictions(np.vstack([scores, scores]), both, ["easy", "hard"], "multilabel", names, names, groups)


def test_groups_alike_in_every_class_have_no_gap_where_one_lacks_a_hard_class():
    found = subgroup_metrics(hospitals(), ["auroc", "average_precision", "sensitivity"], resamples=200)["hospital"]
    gap = found.gaps["auroc_macro"]
    assert gap.difference.value == pytest.approx(0, abs=1e-12)
    assert gap.difference.p_value == gap.p_corrected == 1
    assert gap.difference.classes == ("easy",)
    assert found.classes["auroc_macro"] == ["easy"]
    assert found.overall["auroc_macro"] == pytest.approx(1)
    for value in "AB":
        assert found.intervals[value]["auroc_macro"].classes == ("easy",)
        assert found.intervals[value]["auroc_macro"].value == 1
    assert found.intervals["B"]["auroc/hard"].value == pytest.approx(0.5)
    assert found.gaps["auroc/easy"].difference.value == 0
    assert "auroc/hard" not in found.gaps
    assert found.too_small["auroc/hard"] == ["A"]
    assert found.gaps["average_precision_macro"].difference.classes == ("easy",)
    assert found.gaps["sensitivity_macro"].difference.classes == ("easy",)


def test_a_small_group_stays_as_a_point_and_does_not_shrink_what_others_are_compared_on():
    whole = hospitals()
    groups = {"hospital": ["tiny" if 400 <= row < 408 else "AB"[row // 2 % 2] for row in range(800)]}
    labels = whole.labels.copy()
    labels[:400] = labels[400:]  # both classes in A and B
    labels[400:408] = [[0, 0], [1, 0]] * 4  # but in the tiny one no hard case
    found = subgroup_metrics(replace(whole, labels=labels, groups=groups), ["auroc"], resamples=50)["hospital"]
    assert found.classes["auroc_macro"] == ["easy", "hard"]
    tiny = found.intervals["tiny"]["auroc_macro"]
    assert (tiny.value, tiny.is_known, tiny.n_images, tiny.classes) == (1.0, False, 8, ("easy",))
    assert found.too_small["auroc_macro"] == ["tiny"]
    assert {found.gaps["auroc_macro"].best, found.gaps["auroc_macro"].worst} == {"A", "B"}


def test_the_gap_of_many_values_is_corrected_for_the_pairs():
    bands = [str(number % 5) for number in range(400)]
    whole = make(images=400, patients=10**6, groups={"age": bands})
    gap = subgroup_metrics(whole, ["auroc"], resamples=200)["age"].gaps["auroc/c0"]
    assert gap.p_corrected == pytest.approx(min(1, 10 * gap.difference.p_value))


def test_observed_to_expected_of_each_group_is_the_count_and_its_best_is_next_to_one():
    whole = predictions()
    found = subgroup_metrics(whole, ["observed_expected", "ece"], resamples=200)["sex"]
    for value in "FM":
        rows = (np.array(SEX, dtype=object) == value) & ~np.isnan(whole.labels[:, 1])
        expected = whole.labels[rows, 1].sum() / whole.scores[rows, 1].sum()
        estimate = found.intervals[value]["observed_expected/c1"]
        assert estimate.value == pytest.approx(expected)
        assert estimate.low < expected < estimate.high
    gap = found.gaps["observed_expected/c1"]
    away = {value: abs(np.log(found.intervals[value]["observed_expected/c1"].value)) for value in "FM"}
    assert gap.best == min(away, key=away.get)
    assert "observed_expected_macro" not in found.intervals["F"]


def test_the_mean_sensitivity_of_a_multiclass_group_goes_over_the_classes_of_all_groups():
    labels = np.eye(3)[np.concatenate([np.tile([0, 1], 60), np.tile([0, 1, 2], 40)])]
    calls = labels.copy()
    calls[120:][labels[120:, 2] == 1] = [1, 0, 0]  # the third class, which only the second group has, is never found
    names = [str(number) for number in range(240)]
    groups = {"site": ["A"] * 120 + ["B"] * 120}
    whole = Predictions(0.1 + 0.7 * calls, labels, ["x", "y", "z"], "multiclass", names, names, groups)
    found = subgroup_metrics(whole, ["balanced_accuracy"], resamples=50)["site"]
    assert found.gaps["balanced_accuracy"].difference.value == 0
    assert found.classes["balanced_accuracy"] == ["x", "y"]
