"""The choice among the VOI transformations that a file declares, and what is said of it."""

import warnings

import numpy as np
import pytest

from cleft_bundle.data import RadiographReader
from tests.data import raw_dicom
from tests.data.dicom.test_pixels import table_item
from tests.data.radiographs import load, make_dicom, save_nifti, scene

WRONG = (2725, 5310)  # a public DX file has pixels of 32744..65535 and this window
RIGHT = (49152, 32768)


def high_values():
    return (32744 + scene().astype(np.int64) * 8).astype(np.uint16)


def make(path, *windows, pixels=None, **elements):
    centers, widths = [w[0] for w in windows], [w[1] for w in windows]
    window = {"WindowCenter": centers, "WindowWidth": widths} if windows else {}
    pixels = high_values() if pixels is None else pixels
    return make_dicom(path, pixels, **({"BitsStored": 16, "HighBit": 15} | window | elements))


def read(path, **options):
    """The image, its metadata and the texts of all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image, meta = load(path, **options)
    return image, meta, [str(w.message) for w in caught]


def linear(window, values):
    return np.clip((values - (window[0] - 0.5)) / (window[1] - 1) + 0.5, 0, 1)


def test_a_window_that_shows_something_is_kept_without_a_word(tmp_path):
    image, meta, said = read(make(tmp_path / "x.dcm", RIGHT, WRONG))
    np.testing.assert_allclose(image, linear(RIGHT, high_values().astype(float)), atol=1e-6)
    assert (meta["voi_applied"], meta["blank"], said) == ("window 1", False, [])


def test_a_window_that_shows_nothing_gives_way_to_the_next_with_one_warning(tmp_path):
    image, meta, said = read(make(tmp_path / "name of file.dcm", WRONG, RIGHT))
    np.testing.assert_allclose(image, linear(RIGHT, high_values().astype(float)), atol=1e-6)
    assert (meta["voi_applied"], meta["blank"]) == ("window 2", False)
    (text,) = said
    assert text.startswith("name of file.dcm: window 1 would show less than 5% of the grey levels")
    assert text.endswith("shown by window 2 instead")
    assert not any(number in text for number in ("2725", "5310", "49152", str(tmp_path)))


def test_a_table_comes_after_the_windows_and_percentiles_after_it(tmp_path):
    good = table_item(np.arange(0, 65536, 2), first=32768, bits=16)
    _, meta, said = read(make(tmp_path / "x.dcm", WRONG, VOILUTSequence=[good]))
    assert (meta["voi_applied"], len(said)) == ("lut 1", 1)
    image, meta, said = read(make(tmp_path / "x.dcm", WRONG, VOILUTSequence=[table_item([7] * 9, bits=16)]))
    low, high = np.percentile(high_values(), (0.5, 99.5))
    np.testing.assert_allclose(image, np.clip((high_values() - low) / (high - low), 0, 1), atol=1e-6)
    assert meta["voi_applied"] == "percentiles"
    assert "window 1, lut 1 would show" in said[0]


def test_the_whole_range_comes_last(tmp_path):
    pixels = np.full((48, 32), 40000, np.uint16)
    pixels[0, 0] = 50000  # beyond the percentiles
    image, meta, said = read(make(tmp_path / "x.dcm", WRONG, pixels=pixels))
    assert (image.min(), image[0, 0]) == (0, 1)
    assert meta["voi_applied"] == "none"
    assert "the whole range" in said[0]


@pytest.mark.parametrize(
    ("voi", "applied"),
    [(0, "window 1"), (1, "window 2"), ("lut", "lut 1"), ("percentile", "percentiles"), ("none", "none")],
)
def test_an_explicit_choice_is_obeyed_whatever_it_shows(tmp_path, voi, applied):
    table = table_item(np.arange(4096))
    image, meta, said = read(make(tmp_path / "x.dcm", WRONG, RIGHT, VOILUTSequence=[table]), voi=voi)
    assert meta["voi_applied"] == applied
    nothing = voi in (0, "lut")
    assert meta["blank"] == nothing
    assert np.ptp(image) == (0 if nothing else pytest.approx(1, abs=0.01))
    assert [text.partition(": ")[2] for text in said] == ["blank: all pixels but padding have one value"] * nothing


@pytest.mark.parametrize("width", [300, 1000, 4000])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_honest_windows_are_kept(tmp_path, width, function):
    path = make_dicom(tmp_path / "x.dcm", WindowCenter=2000, WindowWidth=width, VOILUTFunction=function)
    assert read(path)[1]["voi_applied"] == "window 1"


def test_a_file_without_a_voi_is_shown_over_its_range(tmp_path, dicom):
    assert read(dicom)[1]["voi_applied"] == "none"
    save_nifti(tmp_path / "x.nii", scene().T)
    assert [read(tmp_path / "x.nii")[1][name] for name in ("voi_applied", "blank")] == ["none", False]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_constant_image_is_flagged(tmp_path, photometric):
    pixels = np.full((9, 9), 700, np.uint16)
    pixels[0] = 5
    options = {"PhotometricInterpretation": photometric, "PixelPaddingValue": 5}
    for windows in ([], [RIGHT]):
        _, meta, said = read(make(tmp_path / "x.dcm", *windows, pixels=pixels, **options))
        assert meta["blank"] is True
        assert said == ["x.dcm: blank: all pixels but padding have one value"]
    save_nifti(tmp_path / "x.nii", np.zeros((4, 5), np.float32))
    assert read(tmp_path / "x.nii")[1]["blank"] is True


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(("center", "width"), [("2048\\", "4096"), ("2048\\ ", "4096\\"), ("2048\\1\\", "4096\\9")])
def test_a_trailing_backslash_closes_a_list_of_numbers(tmp_path, explicit, center, width):
    elements = raw_dicom.grey(48, 32, scene().tobytes())
    elements += [(0x00281050, "DS", center), (0x00281051, "DS", width)]
    image, meta = load(raw_dicom.write(tmp_path / "x.dcm", elements, explicit))
    np.testing.assert_allclose(image, scene() / 4095, atol=1e-6)
    assert meta["voi_applied"] == "window 1"


def test_the_reader_that_older_classifiers_declare_keeps_loading():
    assert RadiographReader().voi == "auto"
    assert RadiographReader(voi=0, percentiles=(0.5, 99.5), for_processing="error", frame=None).voi == 0
