import pytest

from cleft_bundle.data import check_items, is_multi_label, present_items, task_of
from cleft_bundle.errors import BundleError
from tests.data.items import item, named

NAN = float("nan")


def test_multi_label(picture):
    assert not is_multi_label(named(picture, 4))
    assert is_multi_label([item(picture, 0, 0, (1.0, 1.0))])
    assert task_of(named(picture, 4)) == "multiclass"
    assert task_of([item(picture, 0, 0, (1.0, 1.0))]) == "multilabel"


def test_an_empty_list_is_an_error():
    with pytest.raises(BundleError, match="empty"):
        check_items([])


def test_missing_images_are_counted_and_five_named(picture):
    items = named(picture, 10)
    for each in items[2:9]:
        each["image"] += ".gone"
    with pytest.raises(BundleError, match=r"^7 of 10 images do not exist, the first: 0002\.png, .*0006\.png$"):
        check_items(items)


def test_a_part_of_a_set_is_what_is_there_with_counts(picture, caplog):
    items = named(picture, 6, test=4)
    for each in items[2:7]:
        each["image"] += ".gone"
    assert present_items(items) == [*items[:2], *items[7:]]
    assert "5 of 10 images, of 5 of 10 patients (train: 2 of 6, test: 3 of 4); 5 images are not there" in caplog.text
    with pytest.raises(BundleError, match=r"^5 of 10 images do not exist, .*; --absent_images skip trains on those"):
        present_items(items, "error")
    with pytest.raises(BundleError, match=r"absent_images: expected one of skip, error, got 'warn'"):
        present_items(items, "warn")


def test_a_set_without_any_image_is_an_error(picture):
    items = named(picture, 6)
    for each in items:
        each["image"] += ".gone"
    with pytest.raises(BundleError, match=r"^6 of 6 images do not exist, the first: .*0004\.png$"):
        present_items(items)
    assert present_items([]) == []


def test_repeated_names_are_an_error(picture):
    with pytest.raises(BundleError, match=r"1 images are listed more than once.*0001\.png"):
        check_items([*named(picture, 4), item(picture, 1, 1)])


def test_no_caption_is_an_error(picture):
    with pytest.raises(BundleError, match="none of 2 images has a caption"):
        check_items([item(picture, n, n, caption=None) for n in range(2)])


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
        ([(1.0, 0.0), (0.0, -1.0)], "1 of 2 images have a label other than 1, 0 and unknown, the first: 0001.png"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_an_error(picture, labels, words):
    items = [item(picture, n, n, label) for n, label in enumerate(labels)]
    with pytest.raises(BundleError, match=words):
        check_items(items, ["edema", "mass"])


def test_a_class_without_positives_is_a_warning(picture, caplog):
    items = [item(picture, 0, 0, (1.0, 0.0, 0.0)), item(picture, 1, 1, (0.0, 1.0, 0.0))]
    check_items(items, ["edema", "mass", "fracture"])
    assert "'fracture'" in caplog.text


def test_captions_alone_pass_without_classes(picture):
    check_items([item(picture, n, n, ()) for n in range(2)])
