import numpy as np
import pytest
import torch

from cleft_bundle.data import label_summary, make_splits, usable_items
from cleft_bundle.data.usable_labels import class_numbers, exclusive, usable_rows
from cleft_bundle.errors import BundleError
from tests.data.items import item

NAN = float("nan")
#: Each label of three classes, the class that it trains in a multiclass task, and whether it trains a multilabel one.
CASES = [
    ((0.0, 1.0, 0.0), 1, True),
    ((NAN, NAN, 1.0), 2, True),  # a positive beside unknowns is that class
    ((1.0, 0.0, NAN), 0, True),
    ((0.0, 0.0, 0.0), None, True),  # of none of the classes, which is no class 0
    ((1.0, 1.0, 0.0), None, True),  # of several, which is not the first of them
    ((1.0, NAN, 1.0), None, True),
    ((0.0, NAN, 0.0), None, True),
    ((NAN, NAN, NAN), None, False),
]
LABELS = np.array([label for label, *_ in CASES])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_one_rule_for_arrays_and_tensors(kind):
    labels = kind(LABELS)
    assert usable_rows(labels, "multiclass").tolist() == [number is not None for _, number, _ in CASES]
    assert class_numbers(labels[usable_rows(labels, "multiclass")]).tolist() == [1, 2, 0]
    assert usable_rows(labels, "multilabel").tolist() == [known for *_, known in CASES]


def test_exclusive_labels_know_what_one_class_says_of_the_others():
    expected = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [NAN] * 3, [NAN] * 3, [0, NAN, 0], [NAN] * 3])
    np.testing.assert_array_equal(exclusive(LABELS), expected)
    np.testing.assert_array_equal(exclusive(expected), expected)


def items(labels=LABELS):
    return [item("x.png", number, number, label) for number, label in enumerate(labels)]


def test_what_is_left_out_is_counted_with_its_reason(caplog):
    assert [one["name"] for one in usable_items(items(), "multiclass")] == ["0000.png", "0001.png", "0002.png"]
    summary = "3 of 8 have a usable label (multiclass): 1 of none of the classes, 2 of several, 2 of unknown class"
    assert caplog.messages == [f"left out of the training on labels: 5 of 8 images; {summary}"]
    assert label_summary(items(), "multilabel") == "7 of 8 have a usable label (multilabel): 1 of unknown class"
    caplog.clear()
    assert len(usable_items(items(LABELS[:3]), "multiclass")) == 3
    assert not caplog.messages
    assert label_summary(items(LABELS[:3]), "multiclass") == label_summary([], "multiclass") == ""


def test_labels_of_which_none_can_be_learnt_are_an_error():
    with pytest.raises(BundleError, match=r"exactly one class .* 0 of 3 have .* 1 of none .* 2 of several"):
        usable_items(items(LABELS[3:6]), "multiclass")
    with pytest.raises(BundleError, match=r"a known label, positive or negative, .*: 1 of unknown class$"):
        usable_items(items(LABELS[7:]), "multilabel")
    with pytest.raises(BundleError, match="there is no image"):
        usable_items([], "multiclass")


def test_the_splits_tell_how_many_labels_can_be_used(tmp_path, caplog):
    picture = tmp_path / "x.png"
    picture.touch()
    splits = [*["train"] * 5, "validation", "validation", "validation"]
    listed = [{**one, "image": str(picture), "split": split} for one, split in zip(items(), splits, strict=True)]
    with caplog.at_level("INFO"):
        make_splits(listed, task="multiclass")
    assert "train: 5 images of 5 patients; 3 of 5 have a usable label (multiclass): 1 of none of the classes" in (
        caplog.text
    )
    assert "validation: 3 images of 3 patients; 0 of 3 have a usable label (multiclass): 1 of several" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        make_splits(listed)
    assert "usable" not in caplog.text
