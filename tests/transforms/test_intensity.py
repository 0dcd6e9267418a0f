import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor

from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms import (
    GreyToRGB,
    NormalizeForBackbone,
    RandWindow,
    RemoveMarkers,
    WindowPercentile,
    backbone_statistics,
)

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("background", [0.0, 0.15])
def test_markers_become_background_and_the_breast_stays(background, draw_mammogram):
    scene = draw_mammogram(background=background, top_edge=True)
    out = RemoveMarkers()(scene.tensor)
    expected = np.where(scene.marker, background, scene.image)
    np.testing.assert_allclose(out[0], expected, atol=0.01)


def test_an_image_that_is_tissue_all_over_stays_as_it_is():
    rows, columns = np.mgrid[:100, :80]
    spot = torch.from_numpy(0.5 + 0.4 * np.sin(rows / 31) * np.cos(columns / 23))[None]
    torch.testing.assert_close(RemoveMarkers()(spot).as_tensor(), spot)


@settings(max_examples=100)
@given(
    image=arrays(np.float32, (1, 7, 9), elements=st.integers(-50, 50).map(lambda n: n / 8)),
    lower=st.floats(0, 40),
    upper=st.floats(60, 100),
)
def test_window_percentile_is_what_numpy_says_of_the_pixels_above_the_lowest(image, lower, upper):
    out = WindowPercentile(lower, upper)(image)
    above = image[image > image.min()]
    if not len(above):
        expected = np.zeros_like(image)
    else:
        low, high = np.percentile(above, (lower, upper))
        low = image.min() if low == high else low
        expected = np.clip((image - low) / (high - low), 0, 1)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert out.dtype == torch.float32


def test_more_background_does_not_change_the_tissue():
    image = np.random.default_rng(0).random((1, 50, 40)).astype(np.float32) + 0.1
    alone = WindowPercentile()(image)
    padded = WindowPercentile()(np.pad(image, ((0, 0), (0, 0), (0, 400))))
    np.testing.assert_allclose(padded[..., :40], alone, atol=0.01)


def test_large_images_are_windowed_by_a_sample():
    image = np.random.default_rng(0).random((1, 2100, 2000)).astype(np.float32)
    low, high = np.percentile(image, (0.5, 99.5))
    np.testing.assert_allclose(WindowPercentile()(image), np.clip((image - low) / (high - low), 0, 1), atol=2e-3)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31 - 1), sigmoid=st.sampled_from([0.0, 1.0]))
def test_random_windows_are_monotone_keep_black_and_stay_in_range(seed, sigmoid):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 64)
    window = RandWindow(1.0, sigmoid=sigmoid).set_random_state(seed)
    out = window(ramp)
    assert out.dtype == torch.float32
    assert out[0, 0, 0] == 0
    assert out.min() >= 0
    assert out.max() <= 1
    assert (np.diff(out[0, 0]) >= 0).all()
    torch.testing.assert_close(RandWindow(1.0, sigmoid=sigmoid).set_random_state(seed)(ramp), out)


def test_a_linear_window_is_the_line_between_its_ends():
    ramp = np.linspace(0, 1, 11, dtype=np.float32).reshape(1, 1, 11)
    out = RandWindow(1.0, low=(0.1, 0.1), high=(0.6, 0.6), sigmoid=0.0)(ramp)
    np.testing.assert_allclose(out, np.clip((ramp - 0.1) / 0.5, 0, 1), atol=1e-6)


def test_a_window_that_is_not_drawn_changes_nothing(chest):
    np.testing.assert_array_equal(RandWindow(0.0)(chest[None])[0], chest)


def test_grey_to_rgb(chest):
    image = MetaTensor(torch.from_numpy(chest)[None], meta={"filename_or_obj": "scan.png"})
    out = GreyToRGB()(image)
    assert all(torch.equal(channel, image[0]) for channel in out)
    assert out.shape == (3, 120, 100)
    with pytest.raises(RadiographError, match=r"^scan.png: has 3 channels: 1 expected"):
        GreyToRGB()(out)
    with pytest.raises(RadiographError, match=r"^scan.png: has 1 channels: 3 expected"):
        NormalizeForBackbone({"model_type": "vit"})(image)


def folder(path, config=None, processor=None):
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        if content is not None:
            (path / name).write_text(json.dumps(content))
    return str(path)


def test_normalisation_is_the_processor_s(tmp_path, chest):
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 1.0]
    source = folder(tmp_path, {"model_type": "dinov2"}, {"image_mean": mean, "image_std": std})
    image = GreyToRGB()(chest[None])
    before = image.clone()
    out = NormalizeForBackbone(source)(image)
    np.testing.assert_allclose(out, (np.stack([chest] * 3).T - mean).T / np.reshape(std, (3, 1, 1)), atol=1e-5)
    torch.testing.assert_close(image, before)  # NormalizeIntensity(channel_wise=True) of MONAI would have changed it


def test_statistics_of_a_model_type_where_there_is_no_processor(tmp_path):
    assert backbone_statistics(folder(tmp_path, {"model_type": "dinov2"})) == tuple(map(tuple, IMAGENET))
    assert backbone_statistics({"model_type": "siglip_vision_model"}) == ((0.5,) * 3, (0.5,) * 3)


def test_a_processor_that_does_not_normalise(tmp_path):
    source = folder(tmp_path, processor={"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert backbone_statistics(source) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("scaling", "white"),
    [({}, 1.0), ({"rescale_factor": 1 / 127.5}, 2.0), ({"do_rescale": False}, 255.0)],
)
def test_a_processor_that_brings_values_to_another_range(scaling, white, tmp_path):
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **scaling}
    mean, std = backbone_statistics(folder(tmp_path, processor=processor))
    for value in (0, 51, 255):  # of the file
        assert (value / 255 - mean[0]) / std[0] == pytest.approx((value / 255 * white - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("config", "processor", "message"),
    [
        (None, {"image_mean": [0.5] * 3, "image_std": [1] * 3, "rescale_factor": 0}, "rescale_factor of .* is 0: a"),
        (None, None, "no readable preprocessor_config.json or config"),
        ({"model_type": "gpt2"}, None, "'gpt2'; statistics are known of beit, clip"),
        (None, {"image_mean": [0.5]}, r"image_mean of .* is \[0.5\]: three numbers"),
        (None, {"image_mean": [0.5] * 3, "image_std": [0, 1, 1]}, "image_std .* above 0"),
    ],
)
def test_statistics_that_cannot_be_found_are_an_error(tmp_path, config, processor, message):
    with pytest.raises(BundleError, match=message):
        NormalizeForBackbone(folder(tmp_path, config, processor))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: backbone_statistics({}), "model_type of the config is None"),
        (lambda: RemoveMarkers(margin=-1), "margin"),
        (lambda: WindowPercentile(99, 1), "lower, upper"),
        (lambda: WindowPercentile(50, 50), "lower, upper"),
        (lambda: WindowPercentile(-1, 50), "lower, upper"),
        (lambda: RandWindow(low=(0.1,)), "low: expected two numbers"),
        (lambda: RandWindow(low=(0.0, 0.9)), "low, high"),
        (lambda: RandWindow(sigmoid=7), "sigmoid"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(BundleError, match=message):
        build()


def test_values_that_are_not_finite_are_an_error_with_the_image_s_name():
    image = MetaTensor(torch.tensor([[[0.0, float("nan")]]]), meta={"filename_or_obj": "scan.nii"})
    for transform in (WindowPercentile(), RemoveMarkers()):
        with pytest.raises(RadiographError, match=r"^scan.nii: holds values that are not finite"):
            transform(image)


@pytest.mark.parametrize("transform", [WindowPercentile(), RemoveMarkers()])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_is_found_wherever_it_lies(transform, value):
    image = torch.rand(1, 2100, 2100, generator=torch.Generator().manual_seed(0))
    image[0, 1001, 1003] = value
    with pytest.raises(RadiographError, match="holds values that are not finite"):
        transform(image)


def test_what_differs_between_the_columns_that_are_looked_at_is_seen():
    image = torch.zeros(1, 1500, 1500)
    image[0, :, 1::3] = 0.5
    out = WindowPercentile()(image)
    assert (float(out.min()), float(out.max())) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_windows_take_floats_of_every_size(dtype):
    image = torch.linspace(0, 1, 30).reshape(1, 5, 6)
    window = RandWindow(prob=1.0).set_random_state(0)
    out = window(image.to(dtype))
    window.set_random_state(0)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, window(image), atol=0.01, rtol=0)
    assert WindowPercentile()(image.to(dtype)).dtype == torch.float32
