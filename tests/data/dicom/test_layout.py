"""Headers and compressed images that contradict each other about the values."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from cleft_bundle.data.dicom.layout import Depth, Layout, agreed_layout
from cleft_bundle.errors import RadiographError
from tests.data.dicom.test_codestreams import wrap
from tests.data.dicom.test_pixels import header
from tests.data.radiographs import first_frame, load, make_dicom, make_jpeg_dicom

ROWS, COLUMNS = 48, 64


def ramp(low, high):
    """Values that rise along each row and from row to row."""
    return np.rint(np.linspace(low, high, ROWS * COLUMNS)).reshape(ROWS, COLUMNS)


def dcmtk(command, *options):
    def encode(path, pixels, bits, signed):
        if not shutil.which(command):
            pytest.skip(f"needs dcmtk: {command} is not on PATH")
        make_dicom(path, pixels, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed))
        subprocess.run([command, *options, str(path), str(path)], check=True, capture_output=True)

    return encode


def pydicoms(syntax):
    def encode(path, pixels, bits, signed):
        make_dicom(path, pixels, syntax, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed))

    return encode


def run_lengths(path, pixels, bits, signed):
    pydicoms(RLELossless)(path, pixels, bits, signed)


ENCODERS = {
    "JPEG 2000": pydicoms(JPEG2000Lossless),
    "JPEG-LS": pydicoms(JPEGLSLossless),
    "JPEG lossless": dcmtk("dcmcjpeg", "+e1", "+tl"),
    "JPEG lossless SV6": dcmtk("dcmcjpeg", "+el", "+sv", "6", "+tl"),
    "RLE": pydicoms(RLELossless),
}


def claim(path, **elements):
    """Change the header, and leave the compressed image as it is."""
    ds = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(ds, name, value)
    if "PixelPaddingValue" in ds:
        ds["PixelPaddingValue"].VR = "US"
    ds.save_as(path)
    return path


def is_rising(image):
    return bool((np.diff(image.ravel()) >= 0).all()) and np.ptp(image) > 0.9


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(("precision", "claimed"), [(16, 12), (12, 10), (12, 8), (10, 12), (12, 16), (16, 16)])
def test_a_ramp_stays_a_ramp_whatever_depth_the_header_claims(tmp_path, kind, precision, claimed):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 2**precision - 1).astype(np.uint16)
    ENCODERS[kind](path, pixels, precision, False)
    claim(path, BitsStored=claimed, HighBit=claimed - 1)
    np.testing.assert_allclose(load(path)[0], pixels / (2**precision - 1), atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_values_that_fit_are_read_by_the_header(tmp_path, kind):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 4095).astype(np.uint16)
    ENCODERS[kind](path, pixels, 16, False)
    claim(path, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(load(path)[0], pixels / 4095, atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("claimed", [16, 13])
def test_sign_extended_values_are_read_as_signed(tmp_path, kind, claimed):
    path = tmp_path / "x.dcm"
    pixels = ramp(-4096, 4095).astype(np.int16)
    ENCODERS[kind](path, pixels, 16, True)
    claim(path, BitsStored=claimed, HighBit=claimed - 1)
    np.testing.assert_allclose(load(path)[0], (pixels + 4096) / 8191, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "JPEG 2000"])
def test_unsigned_values_that_no_signed_header_can_hold_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "x.dcm"
    ENCODERS[kind](path, ramp(0, 65535).astype(np.uint16), 16, False)
    claim(path, BitsStored=12, HighBit=11, PixelRepresentation=1)
    message = r"x\.dcm: \(0028,0101\) BitsStored is 12 and \(0028,0103\) PixelRepresentation 1.* 16 bits"
    with pytest.raises(RadiographError, match=message):
        load(path)


@pytest.mark.parametrize("stored", [12, 13, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_the_sign_of_a_jpeg_2000_image_is_its_own(tmp_path, stored, signed):
    pixels = ramp(-1000, 3000).astype(np.int16)
    data = encode_array(pixels, bits_stored=13)
    path = wrap(tmp_path / "x.dcm", data, JPEG2000Lossless, Rows=ROWS, Columns=COLUMNS)
    claim(path, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed)
    np.testing.assert_allclose(load(path)[0], (pixels + 1000) / 4000, atol=1e-6)


# pydicom issue 1149: an encoder that was not told of the sign
def test_twos_complement_in_an_unsigned_jpeg_2000_image_is_signed_by_its_header(tmp_path):
    pixels = ramp(-1000, 3000).astype(np.int16)
    data = encode_array(pixels.astype(np.uint16) & 0x1FFF, photometric_interpretation=2, bits_stored=13)
    path = wrap(tmp_path / "x.dcm", data, JPEG2000Lossless, Rows=ROWS, Columns=COLUMNS)
    claim(path, BitsStored=13, HighBit=12, PixelRepresentation=1)
    np.testing.assert_allclose(load(path)[0], (pixels + 1000) / 4000, atol=1e-6)


def test_a_baseline_jpeg_of_eight_bits_under_seven_and_twelve(tmp_path):
    path = make_jpeg_dicom(tmp_path / "x.dcm")
    expected = load(path)[0]
    np.testing.assert_array_equal(load(claim(path, BitsStored=7, HighBit=6))[0], expected)
    np.testing.assert_array_equal(load(claim(path, BitsAllocated=16, BitsStored=12, HighBit=11))[0], expected)
    np.testing.assert_array_equal(load(claim(path, BitsAllocated=8, BitsStored=8, HighBit=7))[0], expected)


def test_an_extended_jpeg_of_twelve_bits_under_ten_and_under_the_baseline_syntax(tmp_path):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 4095).astype(np.uint16)
    dcmtk("dcmcjpeg", "+ee", "+q", "100")(path, pixels, 12, False)
    for syntax in ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.50"):
        for bits in (12, 10, 8):
            ds = pydicom.dcmread(path)
            ds.file_meta.TransferSyntaxUID = syntax
            ds.BitsStored, ds.HighBit = bits, bits - 1
            ds.save_as(path)
            np.testing.assert_allclose(load(path)[0], pixels / 4095, atol=0.005)


@pytest.mark.parametrize(
    ("named", "syntaxes"), [("JPEG-LS", ["4.90", "4.50", "4.70"]), ("JPEG 2000", ["4.80", "4.57", "4.201"])]
)
def test_the_format_is_the_compressed_images_own(tmp_path, named, syntaxes):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 4095).astype(np.uint16)
    ENCODERS[named](path, pixels, 12, False)
    for syntax in syntaxes:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.{syntax}")
        if not ds.file_meta.TransferSyntaxUID.is_transfer_syntax:
            continue  # pydicom 2 does not know HTJ2K, and writes no such file
        ds.save_as(path)
        np.testing.assert_allclose(load(path)[0], pixels / 4095, atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG 2000", "JPEG-LS", "RLE"])
def test_samples_that_disagree_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "x.dcm"
    ENCODERS[kind](path, ramp(0, 4095).astype(np.uint16), 12, False)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    claim(path, **colour, BitsAllocated=16, BitsStored=16, HighBit=15)
    with pytest.raises(RadiographError, match=r"\(0028,0002\) SamplesPerPixel"):
        load(path)


def test_compressed_pixels_under_a_native_syntax_are_refused_by_name(tmp_path):
    path = make_dicom(tmp_path / "x.dcm", np.zeros((64, 64), np.uint16))
    ds = pydicom.dcmread(path)
    frame = first_frame(pydicom.dcmread(make_dicom(tmp_path / "y.dcm", syntax=JPEGLSLossless)))
    ds.PixelData = encapsulate([frame * 9])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    with pytest.raises(RadiographError, match=r"\(7FE0,0010\) PixelData is compressed, but \(0002,0010\)"):
        load(path)


def test_declared_overlays_are_no_part_of_the_value(tmp_path):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 4095).astype(np.uint16)
    noisy = pixels | (np.random.default_rng(0).integers(0, 2, pixels.shape) << 12).astype(np.uint16)
    ENCODERS["JPEG-LS"](path, noisy, 16, False)
    ds = pydicom.dcmread(path)
    ds.BitsStored, ds.HighBit = 12, 11
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 12)
    ds.save_as(path)
    np.testing.assert_allclose(load(path)[0], pixels / 4095, atol=1e-6)


def chest(high):
    """A picture with edges and noise, from 0 to `high`, whose neighbours differ by as much as those of a radiograph."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    smooth = (np.sin(rows / 6.0) + np.cos(columns / 9.0) + 2 * (columns > 40)) / 4
    noisy = smooth + np.random.default_rng(3).normal(0, 0.01, smooth.shape)
    return np.rint((noisy - noisy.min()) / np.ptp(noisy) * high).astype(np.uint16)


def graphic():
    """A frame and a line of letters, as an overlay has them: 0 or 1."""
    drawn = np.zeros((ROWS, COLUMNS), np.uint16)
    drawn[4:40, 5], drawn[4:40, 50], drawn[4, 5:50], drawn[40, 5:51] = 1, 1, 1, 1
    drawn[20:27:2, 10:40:3] = 1
    return drawn


@pytest.mark.parametrize("kind", [*ENCODERS, "native"])
@pytest.mark.parametrize("bit", [12, 15])
def test_a_graphic_in_the_high_bits_that_the_header_does_not_declare_is_no_part_of_the_value(tmp_path, kind, bit):
    path = tmp_path / "x.dcm"
    pixels = chest(4095)
    (pydicoms(ExplicitVRLittleEndian) if kind == "native" else ENCODERS[kind])(
        path, pixels | graphic() << bit, 16, False
    )
    claim(path, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(load(path)[0], pixels / 4095, atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_larger_values_than_the_header_says_are_no_graphic(tmp_path, kind):
    path = tmp_path / "x.dcm"
    pixels = chest(65535)
    ENCODERS[kind](path, pixels, 16, False)
    for bits in (15, 12, 10):
        claim(path, BitsStored=bits, HighBit=bits - 1)
        np.testing.assert_allclose(load(path)[0], pixels / 65535, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_native_values_that_the_header_cannot_hold_are_refused_and_not_wrapped(tmp_path, signed):
    pixels = (chest(60000).astype(np.int32) - 30000 * signed).astype(np.int16 if signed else np.uint16)
    path = make_dicom(tmp_path / "x.dcm", pixels, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    with pytest.raises(RadiographError, match=r"x\.dcm: \(0028,0101\) BitsStored is 12, but the pixels hold larger"):
        load(path)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_outside_the_stored_bits_leaves_white_white(tmp_path, kind, photometric):
    path = tmp_path / "x.dcm"
    pixels = ramp(0, 4095).astype(np.uint16)
    pixels[1:6, :7] = 65535
    expected = np.where(pixels == 65535, 0, abs(pixels / 4095 - (photometric == "MONOCHROME1")))
    ENCODERS[kind](path, pixels, 16, False)
    elements = {"PhotometricInterpretation": photometric, "PixelPaddingValue": 65535}
    np.testing.assert_allclose(load(claim(path, BitsStored=12, HighBit=11, **elements))[0], expected, atol=1e-6)
    native = claim(make_dicom(path, pixels), **elements)
    np.testing.assert_allclose(load(native)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("padding", "limit", "signed", "vr"),
    [(65535, 60000, 0, "US"), (-1, None, 0, "SS"), (-32768, -30000, 1, "SS"), (32768, None, 1, "US")],
)
def test_padding_is_found_by_the_sign_of_the_pixels(tmp_path, padding, limit, signed, vr):
    pixels = ramp(-2048 if signed else 0, 2047 if signed else 4095).astype(np.int16 if signed else np.uint16)
    pixels[1, :3] = -32768 if signed else 65535
    path = make_dicom(tmp_path / "x.dcm", pixels, PixelRepresentation=signed)
    ds = pydicom.dcmread(path)
    ds.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", vr, limit)
    ds.save_as(path)
    expected = (pixels - (-2048.0 if signed else 0)) / 4095
    expected[1, :3] = 0
    np.testing.assert_allclose(load(path)[0], expected, atol=2.1e-3 if signed else 1.1e-3)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("depth", [Depth(8, False), Depth(12, False), Depth(12, True), Depth(16, False)])
def test_no_value_is_ever_wrapped(depth, bits, signed):
    ds = header(BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed)
    low, high = Layout(depth.bits, depth.bits - 1, depth.signed).range
    values = np.arange(low, high + 1)
    if signed and not depth.signed and depth.bits >= bits:  # two's complement is all that can be meant
        values = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    cells = values.astype(np.int64) & ((1 << depth.bits) - 1)
    np.testing.assert_array_equal(agreed_layout(ds, depth, cells).unpack(cells), values)


# GDCM ends the process over a precision below 8, and with one above 16
@pytest.mark.parametrize("kind", ["JPEG lossless", "JPEG 2000", "JPEG-LS"])
@pytest.mark.parametrize("precision", [2, 7, 17, 255])
def test_a_precision_that_no_decoder_may_see_is_an_error_and_not_the_end(tmp_path, kind, precision):
    path = tmp_path / "x.dcm"
    ENCODERS[kind](path, ramp(0, 4095).astype(np.uint16), 12, False)
    ds = pydicom.dcmread(path)
    data = bytearray(first_frame(ds))
    start = {"JPEG lossless": b"\xff\xc3", "JPEG-LS": b"\xff\xf7", "JPEG 2000": b"\xff\x4f\xff\x51"}[kind]
    data[data.index(start) + (42 if kind == "JPEG 2000" else 4)] = precision
    ds.PixelData = encapsulate([bytes(data)])
    ds.save_as(path)
    said, shape = "", None
    try:
        shape = load(path)[0].shape
    except RadiographError as error:
        said = str(error)
    # a decoder of the other two may take the damaged precision for true
    assert "PixelData" in said if kind == "JPEG lossless" else "PixelData" in said or shape == (ROWS, COLUMNS)


@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": ROWS // 2},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"Columns": COLUMNS // 3},
    ],
)
def test_native_pixels_that_are_too_many_for_the_header_are_refused_by_name(tmp_path, elements):
    path = claim(make_dicom(tmp_path / "x.dcm", chest(4095)), **elements)
    with pytest.raises(RadiographError, match=r"x\.dcm: \(7FE0,0010\) PixelData holds 6144 bytes, but \(0028,0010\)"):
        load(path)


@pytest.mark.parametrize("padding", [1, 128, 511])
def test_a_block_that_is_filled_up_is_no_contradiction(tmp_path, padding):
    path = make_dicom(tmp_path / "x.dcm", chest(4095))
    expected = load(path)[0]
    ds = pydicom.dcmread(path)
    ds.PixelData += bytes(padding + padding % 2)
    ds.save_as(path)
    np.testing.assert_array_equal(load(path)[0], expected)


@pytest.mark.parametrize("kind", ["JPEG 2000", "JPEG-LS", "RLE"])
@pytest.mark.parametrize("table", [True, False], ids=["offsets", "no offsets"])
def test_more_compressed_images_than_frames_are_refused_by_name(tmp_path, kind, table):
    path = tmp_path / "x.dcm"
    ENCODERS[kind](path, chest(4095), 12, False)
    expected = load(path)[0]
    ds = pydicom.dcmread(path)
    frame = first_frame(ds)
    ds.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=table)  # one frame in four pieces is right
    ds.save_as(path)
    np.testing.assert_array_equal(load(path)[0], expected)
    ds.PixelData = encapsulate([frame, frame], has_bot=table)
    ds.save_as(path)
    with pytest.raises(RadiographError, match=r"\(0028,0008\) NumberOfFrames is 1, but 2 compressed images are there"):
        load(path)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_header_of_another_size_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "x.dcm"
    ENCODERS[kind](path, chest(4095), 12, False)
    with pytest.raises(RadiographError, match=r"\(0028,0010\) Rows x \(0028,0011\) Columns is 24 x 64"):
        load(claim(path, Rows=ROWS // 2))


def test_values_of_a_baseline_jpeg_have_no_sign(tmp_path):
    path = make_jpeg_dicom(tmp_path / "x.dcm")
    expected = load(path)[0]
    np.testing.assert_array_equal(load(claim(path, PixelRepresentation=1))[0], expected)
