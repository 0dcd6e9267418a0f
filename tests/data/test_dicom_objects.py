"""What an object is, where its pixels, its tags or its preamble do not say."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRBigEndian

from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.errors import RadiographError
from tests.data import raw_dicom
from tests.data.radiographs import COLUMNS, EXPECTED, ROWS, installed, load, make_dicom, scene

_IMAGES = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("sop_class", "message"),
    [
        (_IMAGES + "88.11", r"\(0008,0016\) SOPClassUID is Basic Text SR Storage, which holds no image"),
        (_IMAGES + "481.5", r"\(0008,0016\) SOPClassUID is RT Plan Storage, which holds no image"),
        (_IMAGES + "9.1.1", r"\(0008,0016\) SOPClassUID is 12-lead ECG Waveform Storage, which holds no image"),
        (_IMAGES + "104.1", r"\(0008,0016\) SOPClassUID is Encapsulated PDF Storage, which holds no image"),
        ("1.2.840.10008.1.3.10", "is a DICOMDIR, a directory of images"),
        (_IMAGES + "1", r"\(7FE0,0010\) PixelData and \(0028,0010\) Rows are missing: a header without an image"),
        ("1.2.826.0.1.3680043.2.1", r"\(7FE0,0010\) PixelData and \(0028,0010\) Rows are missing"),
    ],
)
@pytest.mark.parametrize("where", ["data set", "file meta"])
def test_an_object_without_pixels_is_named(tmp_path, sop_class, message, where):
    elements = [(0x00080016, "UI", sop_class)] if where == "data set" else [(0x00080060, "CS", "OT")]
    path = raw_dicom.write(tmp_path / "x.dcm", elements, sop_class=sop_class)
    with pytest.raises(RadiographError, match=rf"x\.dcm: {message}"):
        load(path)


@pytest.mark.parametrize("name", ["DICOMDIR", "test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm"])
def test_pydicoms_own_objects_are_named(name):
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    path = next(folder.rglob(name), None) or next(installed("data_store").rglob(name), None)
    if path is None:
        pytest.skip(f"this pydicom has no file {name}")
    with pytest.raises(RadiographError, match=r"DICOMDIR, a directory|which holds no image"):
        load(path)


@pytest.mark.parametrize(("tag", "vr", "name"), [(0x7FE00008, "OF", "Float"), (0x7FE00009, "OD", "DoubleFloat")])
def test_floating_point_pixels_are_named(tmp_path, tag, vr, name):
    elements = [one for one in raw_dicom.grey(4, 4, b"") if one[0] != 0x7FE00010]
    path = raw_dicom.write(tmp_path / "x.dcm", [*elements, (tag, vr, bytes(128))])
    with pytest.raises(RadiographError, match=rf"\(7FE0,000{tag & 15}\) {name}PixelData holds the pixels"):
        load(path)


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        ("1.2.840.113619.5.2", r"1\.2\.840\.113619\.5\.2"),
        ("1.2.840.10008.1.2.4.94", r"1\.2\.840\.10008\.1\.2\.4\.94 \(JPIP Referenced\)"),
        ("1.2.840.10008.1.2.4.102", r"1\.2\.840\.10008\.1\.2\.4\.102 \(MPEG-4"),
        ("1.2.3.4", r"1\.2\.3\.4"),
        ("CANARY", "no UID"),
    ],
)
def test_a_transfer_syntax_that_is_not_read_is_named(tmp_path, syntax, said):
    path = raw_dicom.write(tmp_path / "x.dcm", raw_dicom.grey(4, 4, bytes(32)), syntax=syntax)
    with pytest.raises(RadiographError, match=rf"\(0002,0010\) TransferSyntaxUID is {said}.*: no decoder is known"):
        load(path)


@pytest.mark.parametrize("n", ["1.1.1", "1.2.1", "1.3.1"])
def test_for_processing_by_sop_class_alone(tmp_path, n):
    pixels = 4095 - scene()
    options = {"SOPClassUID": _IMAGES + n, "PixelIntensityRelationshipSign": 1}
    path = make_dicom(tmp_path / "x.dcm", pixels, **options)
    with pytest.raises(RadiographError, match=r"\(0008,0016\) SOPClassUID is FOR PROCESSING: not for viewing"):
        load(path)
    image, meta = load(path, for_processing="log", percentiles=(0, 100))
    assert meta["presentation_intent"] == "FOR PROCESSING"
    assert meta["voi_applied"] == "percentiles"
    assert (np.diff(image.ravel()[np.argsort(EXPECTED.ravel(), kind="stable")]) >= 0).all()
    claims = make_dicom(tmp_path / "x.dcm", pixels, **options, PresentationIntentType="FOR PRESENTATION")
    with pytest.raises(RadiographError, match="SOPClassUID is FOR PROCESSING"):
        load(claims)


def test_the_sop_class_tells_modality_and_intent_where_tags_are_missing(tmp_path):
    for n, modality, intent in (
        ("1", "CR", ""),
        ("1.1", "DX", "FOR PRESENTATION"),
        ("1.2", "MG", "FOR PRESENTATION"),
        ("7", "", ""),
    ):
        path = make_dicom(tmp_path / "x.dcm", SOPClassUID=_IMAGES + n, Modality=None, SeriesDescription="L CC")
        ds = pydicom.dcmread(path)
        ds.file_meta.MediaStorageSOPClassUID = UID(_IMAGES + n)
        ds.save_as(path)
        meta = load(path)[1]
        assert (meta["modality"], meta["presentation_intent"]) == (modality, intent)
        assert meta["laterality"] == ("L" if modality == "MG" else "")  # a word of a mammogram's description
        header = dicom_header.describe(dicom_header.read_header(path, pixels=False))
        assert (header["modality"], header["presentation_intent"]) == (modality, intent)
    path = make_dicom(tmp_path / "x.dcm", SOPClassUID=_IMAGES + "1.2", Modality="CR")
    assert load(path)[1]["modality"] == "CR"


@pytest.mark.parametrize("missing", ["PixelRepresentation", "SamplesPerPixel", "HighBit"])
def test_a_missing_element_has_its_safe_default(tmp_path, missing):
    np.testing.assert_allclose(load(make_dicom(tmp_path / "x.dcm", **{missing: None}))[0], EXPECTED, atol=1e-6)


@pytest.mark.parametrize("missing", ["PlanarConfiguration", "SamplesPerPixel", "PixelRepresentation"])
@pytest.mark.filterwarnings("ignore:a colour image")
def test_colour_with_a_missing_element_has_its_safe_default(tmp_path, missing):
    rgb = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
    rgb[0, 0], rgb[0, 1] = 0, 255
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    elements |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, missing: None}
    image, _ = load(make_dicom(tmp_path / "x.dcm", rgb, **elements))
    np.testing.assert_allclose(image, rgb @ [0.299, 0.587, 0.114] / 255, atol=1e-6)


def test_big_endian_without_preamble_and_file_meta(tmp_path):
    data = Path(make_dicom(tmp_path / "x.dcm", syntax=ExplicitVRBigEndian, Modality="DX")).read_bytes()
    start = data.index(struct.pack(">HH", 8, 0x16))
    (tmp_path / "bare").write_bytes(data[start:])
    image, meta = load(tmp_path / "bare")
    np.testing.assert_allclose(image, EXPECTED, atol=1e-6)
    assert meta["modality"] == "DX"
