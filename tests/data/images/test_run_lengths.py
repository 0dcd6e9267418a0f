import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cleft_bundle.data.images.run_lengths import box_of, coco_mask, relative_mask
from cleft_bundle.errors import BundleError

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def runs(mask):
    """Pixels outside, inside, outside, ... down the columns, one by one."""
    counts, inside = [0], False
    for value in mask.flatten(order="F").tolist():
        if value != inside:
            counts.append(0)
            inside = value
        counts[-1] += 1
    return counts


def compressed(counts):
    """COCO's text, by its definition: differences to the count before the last, 5 bits a character."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            chunk = value & 31
            value >>= 5
            more = value != (-1 if chunk & 16 else 0)
            text += chr((chunk | 32 if more else chunk) + 48)
    return text


@given(MASKS)
def test_masks_come_back_from_both_forms_of_coco(mask):
    size = list(mask.shape)
    assert (coco_mask({"size": size, "counts": runs(mask)}) == mask).all()
    assert (coco_mask({"size": size, "counts": compressed(runs(mask))}) == mask).all()


@given(MASKS)
def test_masks_come_back_from_relative_runs(mask):
    counts = runs(mask)
    pairs = counts[: len(counts) // 2 * 2]
    if pairs:
        assert (relative_mask(" ".join(map(str, pairs)), mask.shape) == mask).all()


def test_long_runs_take_several_characters():
    mask = np.zeros((300, 200), bool)
    mask[17:250, 30:190] = True
    assert (coco_mask({"size": [300, 200], "counts": compressed(runs(mask))}) == mask).all()
    assert box_of(mask) == [30.0, 17.0, 160.0, 233.0]


@pytest.mark.parametrize("text", ["", "1", "1 two", "1 0", "-3 4", "0 7", "3 2 2"])
def test_bad_relative_runs_are_refused(text):
    with pytest.raises(BundleError, match="run lengths"):
        relative_mask(text, (2, 3))


@pytest.mark.parametrize(
    "mask",
    [
        {},
        {"size": [2], "counts": [2]},
        {"size": [2, 3], "counts": [1, 2]},
        {"size": [2, 3], "counts": [7, -1]},
        {"size": [2, 3], "counts": "!"},
        {"size": [2, 3], "counts": "é"},
    ],
)
def test_bad_masks_are_refused(mask):
    with pytest.raises(BundleError, match="mask"):
        coco_mask(mask)


def test_an_empty_mask_has_no_box():
    with pytest.raises(BundleError, match="marks no pixel"):
        box_of(np.zeros((2, 2), bool))
