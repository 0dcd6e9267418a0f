import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from cleft_bundle.data.dicom.codestreams import decode_reduced, inspect, without_boxes
from cleft_bundle.errors import RadiographError
from tests.data.radiographs import (
    COLUMNS,
    EXPECTED,
    ROWS,
    first_frame,
    installed,
    load,
    make_dicom,
    make_jpeg_dicom,
    scene,
)

HTJ2K = (Path(__file__).parents[1] / "files" / "scene.htj2k").read_bytes()  # the scene, lossless, written by OpenJPH


def smooth(rows=300, columns=202, bits=12):
    """A picture without fine detail, so that its small versions agree."""
    y, x = np.mgrid[:rows, :columns]
    return np.rint((0.5 + 0.4 * np.sin(x / 40) * np.cos(y / 50)) * (2**bits - 1)).astype(np.uint16)


def j2k(pixels, bits=12):
    return encode_array(pixels, photometric_interpretation=2, bits_stored=bits)


def shrunk(pixels, halvings):
    """The mean over areas, with the last rows and columns repeated where they are cut."""
    step = 2**halvings
    pad = [(0, -size % step) for size in pixels.shape]
    padded = np.pad(pixels.astype(float), pad, mode="edge")
    rows, columns = padded.shape[0] // step, padded.shape[1] // step
    return padded.reshape(rows, step, columns, step).mean((1, 3))


def wrap(path, data, syntax, **elements):
    """A DICOM file around a compressed image."""
    ds = pydicom.dcmread(make_dicom(path, **elements))
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    ds.PixelData = encapsulate([data])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path)
    return str(path)


def test_headers_of_every_kind_are_read(tmp_path):
    assert inspect(j2k(smooth())) == (300, 202, 1, 5, "JPEG 2000", 12, False)
    assert inspect(j2k(smooth(bits=9).astype(np.int16), 13))[-3:] == ("JPEG 2000", 13, True)
    levels = inspect(HTJ2K).levels
    assert inspect(HTJ2K) == (ROWS, COLUMNS, 1, levels, "HTJ2K", 16, False)
    frame = first_frame(pydicom.dcmread(make_dicom(tmp_path / "x", syntax=JPEGLSLossless)))
    assert inspect(frame) == (ROWS, COLUMNS, 1, 0, "JPEG-LS", 12, False)
    assert inspect(b"\xff\xd8" + b"\xff" + frame[2:]) == inspect(frame)  # a fill byte before the marker
    picture = first_frame(pydicom.dcmread(make_jpeg_dicom(tmp_path / "x")))
    assert inspect(picture) == (ROWS, COLUMNS, 1, 0, "JPEG", 8, False)
    assert inspect(b"not an image at all") is None


@pytest.mark.parametrize("target", [None, 20])
def test_boxes_of_any_length_around_a_jpeg_2000_image_are_passed_over(tmp_path, target):
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8 + 5000, b"xml ") + b"<a/> " * 1000
    data = j2k(scene())
    assert without_boxes(boxes + data) == data
    assert without_boxes(data) == data
    image, _ = load(wrap(tmp_path / "x", boxes + data, JPEG2000Lossless), target_size=target)
    np.testing.assert_array_equal(image, load(wrap(tmp_path / "y", data, JPEG2000Lossless), target_size=target)[0])


def test_a_public_file_with_boxes_of_a_jp2_file_is_read():
    image, meta = load(installed("pydicom") / "data" / "test_files" / "GDCMJ2K_TextGBR.dcm")
    assert (image.shape, meta["decoder"]) == ((400, 400), "gdcm")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\0\0",
        j2k(smooth())[:50],
        j2k(smooth()).replace(b"\xff\x52", b"\xff\x64", 1),
        j2k(smooth()).replace(struct.pack(">II", 202, 300), struct.pack(">II", 0, 0), 1),
    ],
)
def test_broken_headers_are_radiograph_errors(data):
    with pytest.raises(RadiographError):
        inspect(data)


def test_more_tiles_than_the_standard_allows_are_refused():
    data = j2k(smooth())
    tile = data.index(struct.pack(">II", 202, 300), 24)
    header = data[:8] + struct.pack(">II", 65536, 1000) + data[16:tile] + struct.pack(">II", 1, 1) + data[tile + 8 :]
    with pytest.raises(RadiographError, match="65536000 tiles"):
        inspect(header)


@pytest.mark.parametrize("halvings", [1, 2, 3])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_lower_level_is_nearly_the_mean_over_areas(bits, halvings):
    pixels = smooth(304, 208, bits)
    small = decode_reduced(j2k(pixels.astype(np.uint8) if bits == 8 else pixels, bits), halvings)
    expected = shrunk(pixels, halvings)
    assert small.shape == expected.shape
    inner = np.s_[:-1, :-1]
    np.testing.assert_allclose(small[inner] / 2**bits, expected[inner] / 2**bits, atol=0.01 * 2**halvings)


def test_a_level_that_pillow_cannot_read_gives_the_next_larger_one():
    assert decode_reduced(j2k(smooth(300, 201)), 3).shape == (150, 101)


@pytest.mark.parametrize(("target", "shape"), [(301, (300, 202)), (300, (300, 202)), (150, (150, 101)), (40, (75, 51))])
def test_the_reader_decodes_no_more_than_the_target_needs(tmp_path, target, shape):
    path = make_dicom(
        tmp_path / "x", smooth(), JPEG2000Lossless, PixelSpacing=[0.1, 0.1], WindowCenter=2048, WindowWidth=4096
    )
    image, meta = load(path, target_size=target)
    assert image.shape == shape
    np.testing.assert_allclose(meta["original_spacing"], [30 / shape[0], 20.2 / shape[1]])
    np.testing.assert_array_equal(meta["spatial_shape"], shape)
    assert abs(image.mean() - load(path)[0].mean()) < 0.005


def test_other_syntaxes_and_signed_values_are_read_in_full(tmp_path):
    for syntax in (JPEGLSLossless, pydicom.uid.ExplicitVRLittleEndian):
        assert load(make_dicom(tmp_path / "x", syntax=syntax), target_size=8)[0].shape == (ROWS, COLUMNS)
    signed = (scene().astype(np.int16) - 2048) // 2
    path = make_dicom(tmp_path / "x", signed, JPEG2000Lossless, PixelRepresentation=1)
    np.testing.assert_array_equal(load(path, target_size=8)[0], load(path)[0])


@pytest.mark.skipif(not hasattr(pydicom, "pixels"), reason="pydicom 2 does not know the syntax")
@pytest.mark.parametrize("syntax", [f"1.2.840.10008.1.2.4.20{n}" for n in (1, 2, 3)])
def test_high_throughput_jpeg_2000(tmp_path, syntax):
    path = wrap(tmp_path / "x", HTJ2K, syntax)
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=1e-6)
    assert load(path, target_size=16)[0].shape == (24, 16)
