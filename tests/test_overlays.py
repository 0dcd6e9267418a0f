import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.overlays import BOX, overlay


@pytest.fixture
def image():
    return np.random.default_rng(0).random((60, 40)).astype(np.float32)


def test_colour_is_where_the_map_is_high_and_nowhere_else(image):
    heat = np.zeros((60, 40))
    heat[10:20, 5:15] = 1
    picture = overlay(image, heat)
    assert picture.shape == (60, 40, 3)
    assert picture.dtype == np.uint8
    coloured = np.ptp(picture.astype(int), axis=2) > 2
    assert coloured[10:20, 5:15].all()
    assert coloured.sum() == 100


@pytest.mark.parametrize("heat", [np.zeros((60, 40)), np.full((60, 40), -3.0)])
def test_a_flat_map_leaves_the_radiograph_grey(image, heat):
    assert np.ptp(overlay(image, heat).astype(int), axis=2).max() == 0


def test_boxes_are_outlined_and_the_picture_shrinks(image):
    picture = overlay(image, np.zeros((60, 40)), [[8, 20, 10, 16]], longest_side=30)
    assert picture.shape == (30, 20, 3)
    assert tuple(picture[10, 5]) == tuple(picture[17, 8]) == BOX
    assert tuple(picture[13, 6]) != BOX


def test_a_map_of_another_size_is_refused(image):
    with pytest.raises(BundleError, match=r"one size, got \(60, 40\), \(6, 4\)"):
        overlay(image, np.zeros((6, 4)))
