import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleft_bundle.data import splits
from cleft_bundle.errors import BundleError

NAN = float("nan")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "x.png"
    Image.new("L", (4, 4)).save(path)
    return str(path)


def item(picture, number, patient, label=(1.0, 0.0), split=None, caption="c"):
    return {
        "image": picture,
        "name": f"{number:04}.png",
        "caption": caption,
        "label": list(label),
        "patient_id": f"pseudonym{patient}",
        "split": split,
    }


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


def named(picture, train=20, **others):
    counts = {"train": train, **others}
    names = [split for split, count in counts.items() for _ in range(count)]
    return [item(picture, n, n, (float(n % 2), float(n % 2 == 0)), split) for n, split in enumerate(names)]


def test_named_splits_stand(picture):
    divided = splits.make_splits(named(picture, 10, validation=4, test=3))
    assert {name: len(members) for name, members in divided.items()} == {"train": 10, "validation": 4, "test": 3}


def test_a_missing_validation_is_taken_from_training_patients(picture):
    divided = splits.make_splits(named(picture, 18, test=5))
    assert {name: len(members) for name, members in divided.items()} == {"train": 16, "validation": 2, "test": 5}
    assert patients(divided["test"]) == {f"pseudonym{n}" for n in range(18, 23)}


def test_a_patient_on_two_sides_is_an_error(picture):
    items = named(picture, 10, validation=7)
    for place in range(7):
        items[10 + place]["patient_id"] = items[place]["patient_id"]
    with pytest.raises(BundleError) as caught:
        splits.make_splits(items)
    message = str(caught.value)
    assert message.startswith("7 patients are in more than one split")
    assert message.count("pseudonym") == 6  # the word itself and the first five
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


def test_fingerprint_depends_on_names_splits_and_captions_only(picture):
    items = named(picture, 6)
    first = splits.fingerprint(items)
    assert len(first) == 64
    assert splits.fingerprint([{**each, "image": "/elsewhere"} for each in items[::-1]]) == first
    for key in ("name", "split", "caption"):
        assert splits.fingerprint([{**items[0], key: "other"}, *items[1:]]) != first


def test_multi_label(picture):
    assert not splits.is_multi_label(named(picture, 4))
    assert splits.is_multi_label([item(picture, 0, 0, (1.0, 1.0))])


def test_an_empty_list_is_an_error():
    with pytest.raises(BundleError, match="empty"):
        splits.check_items([])


def test_missing_images_are_counted_and_five_named(picture):
    items = named(picture, 10)
    for each in items[2:9]:
        each["image"] += ".gone"
    with pytest.raises(BundleError, match=r"^7 of 10 images do not exist, the first: 0002\.png, .*0006\.png$"):
        splits.check_items(items)


def test_repeated_names_are_an_error(picture):
    with pytest.raises(BundleError, match=r"1 images are listed more than once.*0001\.png"):
        splits.check_items([*named(picture, 4), item(picture, 1, 1)])


def test_no_caption_is_an_error(picture):
    with pytest.raises(BundleError, match="none of 2 images has a caption"):
        splits.check_items([item(picture, n, n, caption=None) for n in range(2)])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([(1.0, 0.0), (1.0, 0.0)], "one class only: edema"),
        ([(0.0, 0.0), (0.0, 0.0)], "one class only: none"),
        ([(1.0, 0.0), (0.0, 0.0)], "one class only: edema"),
        ([(1.0, 1.0), (1.0, 1.0)], "same labels"),
        ([(1.0, NAN), (0.0, NAN)], "class 'mass' has no image with a known label"),
        ([(NAN, NAN), (NAN, NAN)], "no image has a known label"),
        ([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], "labels of 2 classes"),
        ([(1.0, 0.0), (1.0,)], "labels of 2 classes"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_an_error(picture, labels, words):
    items = [item(picture, n, n, label) for n, label in enumerate(labels)]
    with pytest.raises(BundleError, match=words):
        splits.check_items(items, ["edema", "mass"])


def test_a_class_without_positives_is_a_warning(picture, caplog):
    items = [item(picture, 0, 0, (1.0, 0.0, 0.0)), item(picture, 1, 1, (0.0, 1.0, 0.0))]
    splits.check_items(items, ["edema", "mass", "fracture"])
    assert "'fracture'" in caplog.text


def test_captions_alone_pass_without_classes(picture):
    splits.check_items([item(picture, n, n, ()) for n in range(2)])
