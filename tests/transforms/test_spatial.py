import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Resize, SpatialPad

from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms import (
    CropBreast,
    CropCollimation,
    GreyToRGB,
    OrientBreast,
    PadToSquare,
    RandBreastFlip,
    RemoveMarkers,
)
from tests.transforms.conftest import draw


def named(array, **meta):
    return MetaTensor(torch.as_tensor(array)[None].float(), meta={"filename_or_obj": "scan.dcm", **meta})


def test_crop_breast_keeps_the_breast_and_leaves_the_rest(draw_mammogram):
    scene = draw_mammogram()
    out = CropBreast(margin=0.0)(scene.tensor)
    rows, columns = np.where(scene.breast)
    expected = scene.image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.abs(np.subtract(out.shape[1:], expected.shape)).max() <= 4  # of cells of 2 pixels
    np.testing.assert_array_equal(out[0], scene.tensor[0][CropBreast(margin=0.0).box(scene.tensor)])


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_arrays_tensors_and_metatensors_give_metatensors(kind, draw_mammogram):
    image = kind(draw_mammogram().tensor.numpy())
    for transform in (
        CropBreast(),
        CropCollimation(),
        OrientBreast(),
        RandBreastFlip(),
        PadToSquare(),
        RemoveMarkers(),
    ):
        out = transform(image)
        assert isinstance(out, MetaTensor)
        assert out.ndim == 3


@pytest.mark.parametrize("by", ["pixels", "header"])
@pytest.mark.parametrize("wanted", ["left", "right"])
@pytest.mark.parametrize("drawn", ["left", "right"])
def test_the_chest_wall_comes_to_the_side_that_is_asked_for(drawn, wanted, by, draw_mammogram):
    scene = draw_mammogram(chest_wall=drawn, top_edge=True)
    image = named(scene.image, laterality="L" if drawn == "left" else "R")
    out = OrientBreast(wanted, by)(image)
    expected = scene.image if drawn == wanted else scene.image[:, ::-1]
    np.testing.assert_array_equal(out[0], expected.astype(np.float32))
    assert out.meta["laterality"] == image.meta["laterality"]


@settings(max_examples=40)
@given(
    drawn=st.sampled_from(["left", "right"]),
    background=st.floats(0, 0.2),
    noise=st.floats(0, 0.03),
    implant=st.booleans(),
    top_edge=st.booleans(),
    width=st.integers(100, 400),
)
def test_the_chest_wall_is_seen_in_the_pixels(drawn, width, **options):
    scene = draw(shape=(300, width), chest_wall=drawn, **options)
    assert OrientBreast().is_mirrored(scene.tensor) == (drawn == "right")


@pytest.mark.parametrize(
    ("orientation", "laterality", "mirrored"),
    [("A\\F", "R", False), ("P\\FL", "L", True), ("AR\\FL", "", False), ("", "R", True), ("", "L", False)],
)
def test_the_header_s_orientation_goes_before_its_side(orientation, laterality, mirrored, draw_mammogram):
    image = named(draw_mammogram().image, patient_orientation=orientation, laterality=laterality)
    assert OrientBreast(by="header").is_mirrored(image) == mirrored


@pytest.mark.parametrize(
    ("bars", "box"),
    [
        ({}, (slice(0, 120), slice(0, 100))),
        ({"top": 0.0}, (slice(15, 120), slice(0, 100))),
        ({"left": 1.0, "right": 0.0}, (slice(0, 120), slice(9, 93))),
        ({"top": 1.0, "bottom": 0.0, "left": 0.5, "right": 1.0}, (slice(15, 110), slice(9, 93))),
    ],
    ids=str,
)
@pytest.mark.parametrize("letter", [False, True])
def test_shutters_are_cropped_to_the_pixel(bars, box, letter, chest):
    places = {"top": np.s_[:15], "bottom": np.s_[110:], "left": np.s_[:, :9], "right": np.s_[:, 93:]}
    image = chest.copy()
    for side, level in bars.items():
        image[places[side]] = level
    if letter and "top" in bars:
        image[5:9, 40:45] = 1 - bars["top"]
    out = CropCollimation()(image[None])
    np.testing.assert_array_equal(out[0], image[box])


def test_shutters_of_large_images_are_found_to_the_pixel():
    image = np.random.default_rng(0).random((1500, 1201), dtype=np.float32)
    image[:, :100] = image[1333:] = 0
    assert CropCollimation().box(torch.from_numpy(image)[None]) == (slice(0, 1333), slice(100, 1201))


def test_shutters_that_stand_at_an_angle_lose_no_picture(chest):
    rows, columns = np.mgrid[:120, :100]
    shutter = rows < 10 + 0.1 * columns
    image = np.where(shutter, 0, chest)
    rows, columns = CropCollimation().box(torch.from_numpy(image)[None])
    assert 8 <= rows.start <= 12
    assert (rows.stop, columns) == (120, slice(0, 100))


def test_what_shutters_took_comes_back_as_zero(chest):
    image = chest.copy()
    image[:15] = 1.0
    crop = CropCollimation()
    expected = chest.copy()
    expected[:15] = 0
    np.testing.assert_array_equal(crop.inverse(crop(image[None]))[0], expected)


@pytest.mark.parametrize("method", ["symmetric", "end"])
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7)])
def test_pad_to_square(shape, method):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    pad = PadToSquare(method)
    out = pad(image[None])
    side = max(shape)
    np.testing.assert_array_equal(out, SpatialPad(side, method=method)(image[None]))
    np.testing.assert_array_equal(pad.inverse(out)[0], image)


@settings(max_examples=40)
@given(
    chest_wall=st.sampled_from(["left", "right"]),
    height=st.integers(60, 300),
    width=st.integers(60, 300),
    flip=st.booleans(),
    method=st.sampled_from(["symmetric", "end"]),
)
def test_a_heat_map_is_mapped_back_exactly(chest_wall, height, width, flip, method):
    """Every pixel of the map comes back to the pixel of the image that it was made of, and 0 where none was."""
    scene = draw(shape=(height, width), chest_wall=chest_wall)
    chain = Compose([CropBreast(0.05), OrientBreast(), RandBreastFlip(1.0 if flip else 0.0), PadToSquare(method)])
    back = chain.inverse(chain(scene.tensor) + 7)[0]
    assert back.shape == (height, width)
    kept = back != 0
    rows, columns = np.where(kept)
    assert kept[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    np.testing.assert_allclose(back[kept], scene.tensor[0][kept] + 7, rtol=1e-6)
    assert not (scene.breast & ~kept.numpy()).sum() > 0.002 * scene.breast.sum()


def test_a_heat_map_comes_back_through_a_resize(draw_mammogram):
    scene = draw_mammogram(chest_wall="right")
    chain = Compose([CropBreast(), OrientBreast(), PadToSquare("end"), Resize((64, 64), mode="nearest"), GreyToRGB()])
    out = chain(scene.tensor)
    heat = MetaTensor(torch.rand(1, 64, 64), applied_operations=out.applied_operations)
    back = chain.inverse(heat)[0]
    rows, columns = CropBreast().box(scene.tensor)
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    index = (np.arange(side, dtype=np.float32) * np.float32(64 / side)).astype(int)  # nearest, as torch takes it
    expected = np.zeros(scene.image.shape, np.float32)
    large = heat[0].numpy()[np.ix_(index, index)][: rows.stop - rows.start, : columns.stop - columns.start]
    expected[rows, columns] = large[:, ::-1]
    np.testing.assert_array_equal(back, expected)


def test_a_random_flip_changes_the_side_with_the_picture_and_back(draw_mammogram):
    image = named(draw_mammogram().image, laterality="L")
    flip = RandBreastFlip(1.0)
    out = flip(image)
    np.testing.assert_array_equal(out[0], image[0].flip(-1))
    assert (image.meta["laterality"], out.meta["laterality"]) == ("L", "R")
    back = flip.inverse(out)
    np.testing.assert_array_equal(back, image)
    assert back.meta["laterality"] == "L"
    assert RandBreastFlip(0.0)(image).meta["laterality"] == "L"


def test_lazy_pipelines_give_what_others_give(draw_mammogram):
    image = draw_mammogram(chest_wall="right").tensor
    chain = [CropCollimation(), CropBreast(), OrientBreast(), PadToSquare(), Resize((32, 32), mode="nearest")]
    np.testing.assert_array_equal(Compose(chain[:4], lazy=True)(image), Compose(chain[:4])(image))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CropBreast(margin=1.5), "margin: expected a number from 0 to 1, got 1.5"),
        (lambda: CropBreast(margin="wide"), "margin"),
        (lambda: CropCollimation(tolerance=-0.1), "tolerance"),
        (lambda: OrientBreast(chest_wall="top"), "chest_wall: expected one of left, right, got 'top'"),
        (lambda: OrientBreast(by="hand"), "by: expected one of pixels, header"),
        (lambda: RandBreastFlip(prob=2), "prob"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(BundleError, match=message):
        build()


@pytest.mark.parametrize("transform", [CropBreast(), CropCollimation(), OrientBreast(), RemoveMarkers()])
def test_a_blank_image_is_an_error_with_its_name(transform):
    with pytest.raises(RadiographError, match=r"^scan.dcm: (holds one value only|shows nothing but shutter)"):
        transform(named(np.full((40, 30), 0.5)))


def test_other_bad_images_are_errors_with_their_name(draw_mammogram):
    with pytest.raises(RadiographError, match=r"scan.dcm: patient_orientation and laterality do not tell"):
        OrientBreast(by="header")(named(draw_mammogram().image, laterality="B"))
    with pytest.raises(RadiographError, match=r"has the shape \[40, 30\]"):
        CropBreast()(np.zeros((40, 30)))


def test_an_image_without_channels_is_an_error(draw_mammogram):
    flat = named(draw_mammogram().image)[0]
    for transform in (RandBreastFlip(1.0), PadToSquare(), CropBreast(), OrientBreast()):
        with pytest.raises(RadiographError, match=r"has the shape \[400, 300\]: \[channels, rows, columns\]"):
            transform(flat)
