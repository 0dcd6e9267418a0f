import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.inference.heat_overlay import BOX, captioned, heat_overlay


@pytest.fixture
def image():
    return np.random.default_rng(0).random((60, 40)).astype(np.float32)


def test_colour_is_where_the_map_is_high_and_nowhere_else(image):
    heat = np.zeros((60, 40))
    heat[10:20, 5:15] = 1
    picture = heat_overlay(image, heat)
    assert picture.shape == (60, 40, 3)
    assert picture.dtype == np.uint8
    coloured = np.ptp(picture.astype(int), axis=2) > 2
    assert coloured[10:20, 5:15].all()
    assert coloured.sum() == 100


@pytest.mark.parametrize("heat", [np.zeros((60, 40)), np.full((60, 40), -3.0)])
def test_a_flat_map_leaves_the_radiograph_grey(image, heat):
    assert np.ptp(heat_overlay(image, heat).astype(int), axis=2).max() == 0


def test_boxes_are_outlined_and_the_picture_shrinks(image):
    picture = heat_overlay(image, np.zeros((60, 40)), boxes=[[8, 20, 10, 16]], longest_side=30)
    assert picture.shape == (30, 20, 3)
    assert tuple(picture[10, 5]) == tuple(picture[17, 8]) == BOX
    assert tuple(picture[13, 6]) != BOX


def test_colours_depend_on_the_scale_and_not_on_the_map(image):
    heat = np.linspace(0, 1, 2400).reshape(60, 40)
    picture = heat_overlay(image, heat, scale=1.0).astype(int)
    np.testing.assert_allclose(heat_overlay(image, heat / 1000, scale=1e-3), picture, atol=1)
    assert not np.ptp(heat_overlay(image, heat * 1e-9, scale=1.0).astype(int), axis=2).any()
    beyond, at = (heat_overlay(image, np.where(heat > 0.5, value, 0.0), scale=1.0) for value in (9.0, 1.0))
    np.testing.assert_array_equal(beyond, at)
    tints = [
        np.ptp(heat_overlay(image, np.full((60, 40), part), 1.0).astype(int), axis=2).mean() for part in (0.1, 0.3, 1)
    ]
    assert 0 < tints[0] < tints[1] < tints[2]


@pytest.mark.parametrize("shape", [(40, 30), (8, 200), (600, 20), (1, 1), (300, 250), (900, 1024)])
@pytest.mark.parametrize("title", ["edema", "肺炎 <b>\n|" + "w" * 300, "ab " * 300, ""])
def test_a_caption_has_room_under_every_picture(shape, title):
    picture = np.full((*shape, 3), 200, np.uint8)
    whole = captioned(picture, title, ["score 0.834, threshold 0.412: called"])
    height, width = whole.shape[:2]
    assert width >= 420
    assert shape[0] < height <= max(shape[0], 1024) + 400
    below = whole[-20:] if shape[0] < 400 else whole[shape[0] + 1 :]
    assert (below.reshape(-1, 3) == whole[-1, 0]).all(axis=1).mean() > 0.3  # mostly ground, beside the text
    margins = whole[-100:, [0, 1, 2, width - 3, width - 2, width - 1]]
    assert (margins == whole[-1, 0]).all(), "no text is cut at the side"


def test_the_bar_shows_the_colours_of_the_picture():
    grey = np.full((400, 500), 0.45) + np.linspace(-0.45, 0.55, 500)  # whose 46th column is of a middle grey
    heat = np.ones((400, 500))
    whole = captioned(heat_overlay(grey, heat), "edema", [])
    middle = whole[0, np.abs(grey[0] - 0.45).argmin()].astype(int)
    bar = (np.abs(whole[400:].astype(int) - middle).max(axis=2) <= 8).any()
    assert bar, "the end of the bar has the colour that the strongest values have in the picture"


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_without_an_extent_is_refused(image, scale):
    with pytest.raises(BundleError, match="expected a scale above 0"):
        heat_overlay(image, np.zeros((60, 40)), scale=scale)


def test_a_map_of_another_size_is_refused(image):
    with pytest.raises(BundleError, match=r"one size, got \(60, 40\), \(6, 4\)"):
        heat_overlay(image, np.zeros((6, 4)))
