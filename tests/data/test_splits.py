import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleft_bundle.data import fingerprint, pseudonym, splits
from cleft_bundle.errors import BundleError
from tests.data.items import item, named


def many(picture, patients=200, positives=40):
    """Two images a patient; the first `positives` patients have the second finding."""
    return [
        item(picture, 2 * patient + image, patient, (0.0, 1.0) if patient < positives else (1.0, 0.0))
        for patient in range(patients)
        for image in range(2)
    ]


def patients(items):
    return {each["patient_id"] for each in items}


def test_patients_are_divided_never_images(picture):
    divided = splits.make_splits(many(picture))
    assert {name: len(members) for name, members in divided.items()} == {"train": 320, "validation": 40, "test": 40}
    assert (
        len(patients(divided["train"])) + len(patients(divided["validation"])) + len(patients(divided["test"])) == 200
    )
    assert all(each["split"] == name for name, members in divided.items() for each in members)


def test_strata_get_their_share(picture):
    divided = splits.make_splits(many(picture))
    counts = {name: sum(each["label"][1] for each in members) / 2 for name, members in divided.items()}
    assert counts == {"train": 32, "validation": 4, "test": 4}


def test_order_of_rows_does_not_matter_and_the_seed_does(picture):
    items = many(picture)
    shuffled = [items[place] for place in np.random.default_rng(0).permutation(len(items))]
    first = splits.make_splits(items, seed=3)
    assert splits.make_splits(shuffled, seed=3) == first
    assert splits.make_splits(items, seed=4)["test"] != first["test"]


def test_the_seed_of_the_subset_moves_nobody_between_splits(picture):
    items = many(picture)
    first, second, former = (splits.make_splits(items, seed=seed, train_fraction=0.25) for seed in ((3, 3), (3, 4), 3))
    whole = splits.make_splits(items, seed=3)
    assert first == former, "without one, the seed of the split serves, as before"
    assert first["validation"] == second["validation"] == whole["validation"]
    assert first["test"] == second["test"] == whole["test"]
    assert patients(first["train"]) != patients(second["train"])
    assert len(patients(first["train"])) == len(patients(second["train"])) == 40
    assert patients(first["train"]) | patients(second["train"]) <= patients(whole["train"])


def test_inputs_are_left_as_they_are(picture):
    items = many(picture)
    splits.make_splits(items)
    assert items == many(picture)


@settings(max_examples=30, deadline=None)
@given(
    more=st.lists(st.integers(0, 30), max_size=30),
    validation=st.sampled_from([0.1, 0.15, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 99),
)
def test_no_patient_is_on_two_sides(picture, more, validation, test, seed):
    owners = [*range(20), *more]
    items = [item(picture, n, owner, (float(n % 2), float(n % 3 == 0))) for n, owner in enumerate(owners)]
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    divided = splits.make_splits(items, shares, seed)
    sides = [patients(members) for members in divided.values()]
    assert sum(len(side) for side in sides) == len(set(owners))
    assert sum(len(members) for members in divided.values()) == len(items)
    for side, share in zip(sides, shares.values(), strict=True):
        assert abs(len(side) - share * len(set(owners))) < 2


def test_named_splits_stand(picture):
    divided = splits.make_splits(named(picture, 10, validation=4, test=3))
    assert {name: len(members) for name, members in divided.items()} == {"train": 10, "validation": 4, "test": 3}


def test_a_missing_validation_is_taken_from_training_patients(picture):
    divided = splits.make_splits(named(picture, 18, test=5))
    assert {name: len(members) for name, members in divided.items()} == {"train": 16, "validation": 2, "test": 5}
    assert patients(divided["test"]) == {pseudonym(f"patient {n}") for n in range(18, 23)}


def test_a_patient_on_two_sides_is_an_error(picture):
    items = named(picture, 10, validation=7)
    for place in range(7):
        items[10 + place]["patient_id"] = items[place]["patient_id"]
    with pytest.raises(BundleError) as caught:
        splits.make_splits(items)
    message = str(caught.value)
    assert message.startswith("7 patients are in more than one split")
    assert len(re.findall(r"\b[0-9a-f]{16}\b", message)) == 5
    assert "\n" not in message


def test_shared_patients_can_be_dropped_from_the_earlier_split(picture, caplog):
    items = named(picture, 10, validation=4, test=2)
    items[10]["patient_id"] = items[0]["patient_id"]
    items[14]["patient_id"] = items[11]["patient_id"]
    divided = splits.make_splits(items, shared_patients="drop")
    assert {name: len(members) for name, members in divided.items()} == {"train": 9, "validation": 3, "test": 2}
    assert "2 images of 2 patients" in caplog.text
    with pytest.raises(BundleError, match="shared_patients='keep'"):
        splits.make_splits(items, shared_patients="keep")


def test_splits_for_some_only_and_no_training_are_errors(picture):
    items = named(picture, 10)
    items[3]["split"] = None
    with pytest.raises(BundleError, match="1 of 10 images have no split"):
        splits.make_splits(items)
    with pytest.raises(BundleError, match="'train'"):
        splits.make_splits(named(picture, 0, validation=5))


@pytest.mark.parametrize(
    "fractions",
    [(0.8, 0.1), (0.8, 0.3, -0.1), (0.0, 0.5, 0.5), (0.7, 0.1, 0.1, 0.1), {"train": 0.8, "valid": 0.2}, ()],
)
def test_wrong_fractions_are_named(picture, fractions):
    with pytest.raises(BundleError, match="fractions="):
        splits.make_splits(many(picture), fractions)


def test_too_few_patients(picture, caplog):
    items = [item(picture, n, n, (float(n % 2), float(n % 2 == 0))) for n in range(5)]
    with pytest.raises(BundleError, match="2 patients are too few for a validation share"):
        splits.make_splits(items[:2])
    assert not splits.make_splits(items)["test"]
    assert "5 patients are too few for a test share" in caplog.text


#: Fingerprint of drawn_list() divided with seed 5, on any machine: a change of it divides everybody's patients anew.
KNOWN = "30ffe33a78a6370a4f31833b882fa043b1ec79317d1c30b2621b3de46317160e"


def drawn_list(picture, order=None):
    """A list of 150 images with labels that follow from their numbers, in any order of the rows."""
    numbers = range(150) if order is None else order
    return [
        item(picture, n, n * 7 % 83, (float(n % 2), float(n % 5 == 0)), caption=f"caption {n % 9}") for n in numbers
    ]


def test_the_fingerprint_is_the_same_on_every_machine(picture):
    assert fingerprint(splits.make_splits(drawn_list(picture), seed=5)) == KNOWN


@settings(max_examples=10)
@given(order=st.permutations(range(150)), seed=st.integers(0, 5))
def test_and_in_every_order_of_the_rows(picture, order, seed):
    arguments = {"seed": seed, "classes": ["a", "b"], "balanced_test": 4, "train_fraction": 0.5}
    expected = splits.make_splits(drawn_list(picture), **arguments)
    divided = splits.make_splits(drawn_list(picture, order), **arguments)
    assert divided == expected
    assert fingerprint(divided) == fingerprint(expected)


@pytest.mark.parametrize("names", [{}, {"train": 100, "validation": 20}, {"train": 80, "test": 40}])
def test_a_balanced_test_set_takes_its_patients_out_of_training(names, picture):
    items = named(picture, **names) if names else many(picture)
    for number, each in enumerate(items):
        each["patient_id"] = pseudonym(
            f"pair {number // 2}"
        )  # two images a patient, the one often drawn without the other
    divided = splits.make_splits(items, classes=["a", "b"], balanced_test=9)
    assert [sum(each["label"][k] for each in divided["test"]) for k in (0, 1)] == [9, 9]
    sides = [patients(members) for members in divided.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert divided["train"]
    assert divided["validation"]
    if "test" in names:
        before = {each["name"] for each in items if each["split"] == "test"}
        assert {each["name"] for each in divided["test"]} < before


def test_the_fraction_is_of_the_training_patients_and_leaves_validation_and_test_alone(picture):
    whole = splits.make_splits(many(picture))
    part = splits.make_splits(many(picture), train_fraction=0.1)
    assert len(patients(part["train"])) == 16
    assert patients(part["train"]) < patients(whole["train"])
    assert (part["validation"], part["test"]) == (whole["validation"], whole["test"])


def test_a_test_split_can_come_from_the_validation_patients(picture):
    items = named(picture, 10, validation=8)
    divided = splits.make_splits(items, test_fraction=0.5)
    assert {name: len(members) for name, members in divided.items()} == {"train": 10, "validation": 4, "test": 4}
    assert not patients(divided["validation"]) & patients(divided["test"])
    assert {member["split"] for member in divided["test"]} == {"test"}
    assert splits.make_splits(items[::-1], test_fraction=0.5) == divided


@pytest.mark.parametrize(
    ("counts", "fraction", "words"),
    [
        ({"validation": 4, "test": 2}, 0.5, "no test split"),
        ({}, 0.5, "names a validation split"),
        ({"validation": 4}, 1.0, "from 0 to 1"),
    ],
)
def test_a_test_fraction_without_a_place_is_an_error(picture, counts, fraction, words):
    with pytest.raises(BundleError, match=words):
        splits.make_splits(named(picture, 10, **counts), test_fraction=fraction)
