import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms import find_tissue
from cleft_bundle.transforms.tissue import _otsu
from tests.transforms.conftest import draw


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": False},
        {"background": 0.15, "noise": 0.02},
        {"background": 0.1, "noise": 0.03, "fat": 0.25},
        {"fat": 0.08},
        {"implant": True},
        {"top_edge": True},
        {"top_edge": True, "background": 0.12, "noise": 0.02, "implant": True},
        {"shape": (1700, 1300)},
        {"shape": (90, 70)},
    ],
    ids=str,
)
def test_the_breast_is_found_whatever_else_there_is(options):
    scene = draw(**options)
    found = find_tissue(scene.tensor).pixels(0)
    assert dice(found, scene.breast) > 0.96
    assert not (found & scene.marker).any()


@settings(max_examples=60)
@given(
    background=st.floats(0, 0.15),
    noise=st.floats(0, 0.03),
    fat=st.floats(0.35, 0.6),
    implant=st.booleans(),
    top_edge=st.booleans(),
    chest_wall=st.sampled_from(["left", "right"]),
    height=st.integers(64, 600),
    aspect=st.floats(0.4, 1.3),
    scale=st.floats(0.01, 5000),
    offset=st.floats(-1000, 1000),
)
def test_the_breast_is_inside_the_box_in_any_units(height, aspect, scale, offset, **options):
    width = round(height * aspect)
    scene = draw(shape=(height, width), **options)
    rows, columns = find_tissue(scene.tensor * scale + offset).box(0.02)
    outside = scene.breast.copy()
    outside[rows, columns] = False
    assert outside.sum() <= 0.002 * scene.breast.sum()
    assert columns.stop - columns.start < 0.75 * width + 4


def test_the_background_is_its_own_level(draw_mammogram):
    scene = draw_mammogram(background=0.15, noise=0.02)
    assert find_tissue(scene.tensor).background == pytest.approx(0.15, abs=0.01)
    assert find_tissue(scene.tensor * 4000).background == pytest.approx(600, abs=40)


def test_a_film_border_that_touches_the_breast_is_cut_off(draw_mammogram):
    scene = draw_mammogram(labels=False)
    scene.image[:6] = scene.image[-6:] = 1.0
    scene.image[:, :4] = 1.0  # runs along the whole chest wall
    found = find_tissue(scene.tensor).pixels(0)
    assert dice(found, scene.breast) > 0.95


def test_an_image_without_background_is_tissue_all_over():
    rows, columns = np.mgrid[:200, :150]
    spot = 0.5 + 0.25 * np.sin(rows / 31) + 0.2 * np.cos(columns / 23)
    assert find_tissue(torch.from_numpy(spot)[None]).mask.all()


def test_margins_grow_box_and_pixels(draw_mammogram):
    tissue = find_tissue(draw_mammogram().tensor)
    rows, columns = np.where(tissue.pixels(0.05))
    box = tissue.box(0.05)
    assert abs(rows.min() - box[0].start) <= tissue.step
    assert abs(columns.max() + 1 - box[1].stop) <= tissue.step
    assert tissue.box(1.0) == (slice(0, 400), slice(0, 300))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=200).filter(lambda values: len(set(values)) > 1))
def test_otsu_has_the_largest_variance_between_classes(values):
    levels = np.array(values) / 256 + 1 / 512  # in the middle of the bins

    def between(threshold):
        low, high = levels[levels <= threshold], levels[levels > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(between(edge / 256) for edge in range(1, 256))
    assert between(_otsu(levels)) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 0, 5), "no pixel"),
        (torch.full((1, 20, 20), 3.0), "one value only, 3"),
        (torch.tensor([[[0.0, float("nan")], [1.0, 2.0]]]), "not finite"),
        (torch.tensor([[[0.0, float("inf")], [1.0, 2.0]]]), "not finite"),
    ],
)
def test_an_image_without_content_is_an_error(image, message):
    with pytest.raises(RadiographError, match=message):
        find_tissue(image)
