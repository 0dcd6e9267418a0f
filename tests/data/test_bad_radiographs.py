import gzip
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cleft_bundle.data import RadiographReader
from cleft_bundle.data.dicom import decoding as dicom_decoding
from cleft_bundle.data.dicom.checks import KINDS
from cleft_bundle.data.dicom.header import read_header
from cleft_bundle.errors import RadiographError
from tests.data.radiographs import (
    COLUMNS,
    EXPECTED,
    ROWS,
    first_frame,
    load,
    make_dicom,
    make_jpeg_dicom,
    picture_bytes,
    png,
    save_nifti,
    scene,
)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Rows": None}, r"\(0028,0010\) Rows is missing"),
        ({"Columns": 0}, r"\(0028,0011\) Columns is 0"),
        ({"PhotometricInterpretation": None}, r"\(0028,0004\) PhotometricInterpretation is missing"),
        ({"PhotometricInterpretation": "HSV"}, r"\(0028,0004\) PhotometricInterpretation is not one of"),
        ({"PixelData": b""}, r"\(7FE0,0010\) PixelData is missing"),
        ({"PixelData": b"\0" * 100}, r"\(7FE0,0010\) PixelData is truncated: 100 bytes of 3072"),
        ({"Rows": 65535, "Columns": 65535}, r"\(0028,0010\) Rows x \(0028,0011\) Columns is 65535 x 65535"),
        ({"Rows": 10000, "Columns": 10000}, r"\(7FE0,0010\) PixelData is truncated: 3072 bytes of 200000000"),
        ({"NumberOfFrames": 7}, r"\(0028,0008\) NumberOfFrames is 7"),
        ({"SamplesPerPixel": 3}, r"\(0028,0002\) SamplesPerPixel is 3"),
        ({"BitsStored": 17}, r"\(0028,0101\) BitsStored 17"),
        ({"PresentationIntentType": "FOR PROCESSING"}, r"\(0008,0068\) PresentationIntentType is FOR PROCESSING"),
    ],
)
def test_a_bad_header_names_the_file_and_the_tag(tmp_path, elements, message):
    path = make_dicom(tmp_path / "bad.dcm", **elements)
    with pytest.raises(RadiographError, match=r"bad\.dcm: " + message):
        load(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_compressed_data_is_never_half_an_image(tmp_path, syntax, kept):
    whole = Path(make_dicom(tmp_path / "x", np.tile(scene(), (4, 4)), syntax))
    ds = pydicom.dcmread(whole)
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) - int(len(ds.PixelData) * (1 - kept))])
    with pytest.raises(RadiographError, match=r"cut: \(7FE0,0010\) PixelData"):
        load(tmp_path / "cut")
    frame = first_frame(ds)
    ds.PixelData = encapsulate([frame[: int(len(frame) * kept) // 2 * 2]])  # the container is whole, the image is not
    ds.save_as(tmp_path / "cut")
    with pytest.raises(RadiographError, match=r"cut: \(7FE0,0010\) PixelData"):
        load(tmp_path / "cut")


def test_jpeg_baseline_decodes_and_a_cut_one_does_not(tmp_path):
    path = make_jpeg_dicom(tmp_path / "x.dcm")
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=0.06)
    ds = pydicom.dcmread(path)
    ds.PixelData = encapsulate([ds.PixelData[16 : len(ds.PixelData) // 2 * 2 - 200]])
    ds.save_as(path)
    with pytest.raises(RadiographError, match=r"PixelData is truncated"):
        load(path)


def test_decoders_fall_back_in_order_and_the_error_lists_what_each_said(tmp_path, monkeypatch):
    path = make_dicom(tmp_path / "x.dcm", syntax=JPEGLSLossless)
    asked = []

    def ask(plain, name, frame):
        asked.append(name)
        raise RuntimeError(f"{name} cannot\ndo it")

    monkeypatch.setattr(dicom_decoding, "_ask_pydicom", ask)
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=1e-6)  # GDCM's reader, the last, can
    assert asked == ["pyjpegls", "gdcm", "pylibjpeg"]
    monkeypatch.setattr(dicom_decoding, "_ask_gdcm_reader", lambda plain: np.zeros((2, 2)))
    with pytest.raises(RadiographError) as error:
        load(path)
    assert "pyjpegls: pyjpegls cannot do it; gdcm: gdcm cannot do it" in str(error.value)
    assert "gdcm reader: gave an image of 2 x 2" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless], ids=lambda uid: uid.keyword)
def test_gdcms_reader_gives_the_stored_values(tmp_path, monkeypatch, syntax, photometric):
    elements = {"PhotometricInterpretation": photometric, "RescaleSlope": 2, "RescaleIntercept": -1000}
    ds = read_header(make_dicom(tmp_path / "x.dcm", syntax=syntax, **elements))
    kind = next(kind for kind, syntaxes in KINDS.items() if syntax in syntaxes)
    monkeypatch.setitem(dicom_decoding.DECODERS, kind, ("gdcm reader",))
    decoded = dicom_decoding.decode(ds)
    np.testing.assert_array_equal(decoded.pixels, scene())
    assert decoded.decoder == "gdcm reader"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.dcm", b"Dear colleague, thank you for sending this patient." * 9, "is not an image that is known"),
        ("empty.dcm", b"", "is empty"),
        ("half.png", picture_bytes("PNG")[:300], "cannot be read"),
        ("half.jpg", picture_bytes("JPEG")[:400], "cannot be read"),
        ("broken.png", picture_bytes("PNG").replace(b"IDAT", b"IDXT"), "cannot be read"),
        ("bomb.png", png(60000, 60000), "is 60000 x 60000: 1 to 100000000 pixels are expected"),
        ("pages.tif", picture_bytes("TIFF", frames=3), "holds 3 images"),
        ("x.nii.gz", gzip.compress(b"not a header", mtime=0), "cannot be read"),
        ("x.nii", b"\0" * 400, "cannot be read"),
        ("bare.dcm", b"\0" * 128 + b"DICM", r"\(7FE0,0010\) PixelData and \(0028,0010\) Rows are missing"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RadiographError, match=rf"{name}: .*{message}") as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_size_limit_holds_for_every_format(tmp_path, dicom):
    Image.fromarray(scene()).save(tmp_path / "x.png")
    save_nifti(tmp_path / "x.nii", scene().T)
    for path in (dicom, tmp_path / "x.png", tmp_path / "x.nii"):
        assert load(path, max_pixels=ROWS * COLUMNS)[0].shape == (ROWS, COLUMNS)
        with pytest.raises(RadiographError, match="1535"):
            load(path, max_pixels=ROWS * COLUMNS - 1)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1, 3), (7,)])
def test_nifti_volumes_are_refused(tmp_path, shape):
    save_nifti(tmp_path / "x.nii", np.zeros(shape, np.float32))
    with pytest.raises(RadiographError, match="W x H or W x H x 1 is expected"):
        load(tmp_path / "x.nii")


def test_values_that_are_not_finite_are_black(tmp_path):
    image = EXPECTED.astype(np.float32)
    image[3, 4], image[5, 6] = np.nan, np.inf
    save_nifti(tmp_path / "x.nii", image.T)
    got, _ = load(tmp_path / "x.nii")
    assert (got[3, 4], got[5, 6]) == (0, 0)
    assert np.delete(np.abs(got - image).ravel(), [3 * COLUMNS + 4, 5 * COLUMNS + 6]).max() < 1e-6
    save_nifti(tmp_path / "x.nii", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(RadiographError, match="no finite value"):
        load(tmp_path / "x.nii")


def test_read_raises_nothing_so_that_monai_tries_no_other_reader(tmp_path, dicom):
    missing = str(tmp_path / "missing.dcm")
    with pytest.raises(RadiographError, match=r"missing\.dcm: does not exist"):
        load(missing)
    with pytest.raises(RadiographError, match="is not a file"):
        load(tmp_path)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(Path(dicom).read_bytes()[:-500])
    with pytest.raises(RadiographError, match="truncated"):  # MONAI's own readers would return it
        LoadImaged("image", reader=RadiographReader())({"image": str(cut)})


@pytest.mark.parametrize(
    "bad",
    [
        *({"voi": -1}, {"voi": "first"}, {"frame": "last"}, {"frame": -1}, {"target_size": 0}),
        *({"for_processing": "yes"}, {"percentiles": (99, 1)}, {"percentiles": (1,)}),
    ],
)
def test_bad_options_are_named(bad):
    with pytest.raises(RadiographError, match=next(iter(bad))):
        RadiographReader(**bad)


def claim_size(path, syntax, old, new):
    """Write a DICOM file in which the compressed image claims another size than the header."""
    ds = pydicom.dcmread(make_dicom(path, syntax=syntax))
    data = ds.PixelData
    assert old in data
    ds.PixelData = data.replace(old, new, 1)
    ds.save_as(path)
    return path


@pytest.mark.parametrize(
    ("syntax", "old", "new"),
    [
        (JPEG2000Lossless, struct.pack(">4I", COLUMNS, ROWS, 0, 0), struct.pack(">4I", 4000, 4000, 0, 0)),
        (JPEGLSLossless, struct.pack(">HH", ROWS, COLUMNS), struct.pack(">HH", 4000, 4000)),
    ],
    ids=lambda value: getattr(value, "keyword", ""),
)
def test_a_compressed_image_that_would_unfold_to_another_size_is_not_decoded(tmp_path, monkeypatch, syntax, old, new):
    path = claim_size(tmp_path / "bomb.dcm", syntax, old, new)
    monkeypatch.setattr(dicom_decoding, "_ask_pydicom", lambda *_: pytest.fail("a decoder was asked"))
    with pytest.raises(RadiographError, match=r"bomb.dcm: \(0028,0010\) Rows .* is 48 x 32 .* 4000 x 4000"):
        load(path)


def test_run_lengths_that_cannot_fill_the_image_are_not_decoded(tmp_path):
    path = make_dicom(tmp_path / "bomb.dcm", syntax=RLELossless)
    ds = pydicom.dcmread(path)
    ds.Rows = ds.Columns = 9000
    ds.save_as(path)
    with pytest.raises(RadiographError, match=r"\(7FE0,0010\) PixelData is truncated: \d+ bytes of 2531250"):
        load(path)


def test_a_deflated_file_unfolds_to_a_limit(tmp_path):
    path = tmp_path / "bomb.dcm"
    make_dicom(path, np.zeros((3000, 3000), np.uint16), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 50_000
    with pytest.raises(RadiographError, match=r"\(0002,0010\) TransferSyntaxUID is deflated: unfolds to more than"):
        load(path, max_pixels=1_000_000)
    assert load(path)[0].shape == (3000, 3000)


def test_nested_sequences_and_a_text_of_many_lines_end_soon(tmp_path, dicom):
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    start = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    data = Path(dicom).read_bytes()
    cut = data.index(struct.pack("<HH", 0x28, 2))
    (tmp_path / "deep.dcm").write_bytes(data[:cut] + start + item * 20_000 + data[cut:])
    with pytest.raises(RadiographError, match=r"deep\.dcm"):
        load(tmp_path / "deep.dcm")
