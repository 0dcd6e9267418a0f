import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, Flip, LoadImage, Resize, Rotate90, SaveImage, SaveImaged
from PIL import Image

from cleft_bundle.data import RadiographReader, RadiographWriter
from cleft_bundle.data.images.geometry import patient_orientation, pixel_spacing
from cleft_bundle.data.images.picture_notes import count_levels
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms import SaveRadiograph, SaveRadiographd
from tests.data.radiographs import COLUMNS, PHI, ROWS, load, make_dicom, scene

SUFFIXES = (".png", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm")
HALF_A_STEP = 0.5 / 65535 + 1e-7
READ = Compose([LoadImage(reader=RadiographReader()), EnsureChannelFirst(channel_dim="no_channel")])


@pytest.fixture(autouse=True)
def _extra(request):
    if "dcm" in request.node.name:
        pytest.importorskip("highdicom", reason="needs the extra: pip install 'cleft_bundle[sr]'")


@pytest.fixture
def original(tmp_path):
    """A chest of 12 bits, not square, its pixels not either, with a header full of names."""
    elements = {"PatientOrientation": ["L", "F"], "ViewPosition": "PA", "ImageLaterality": "L"}
    elements["SeriesInstanceUID"] = "1.2.4"
    path = make_dicom(tmp_path / "original.dcm", PixelSpacing=[0.3, 0.2], Modality="CR", **elements, **PHI)
    return READ(path)


def write(image, path, **options):
    writer = RadiographWriter(**options)
    writer.set_data_array(image)
    writer.set_metadata(image.meta)
    writer.write(path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_twelve_bits_comes_back_exactly(suffix, original, tmp_path):
    image, meta = load(write(original, tmp_path / f"x{suffix}"))
    assert image.shape == (ROWS, COLUMNS)
    np.testing.assert_allclose(image, scene() / 4095, atol=1e-7)
    np.testing.assert_allclose(meta["original_spacing"], [0.3, 0.2])
    np.testing.assert_allclose(meta["affine"], original.affine)
    expected = {"modality": "CR", "view": "PA", "laterality": "L", "patient_orientation": "L\\F"}
    assert {name: meta[name] for name in expected} == expected
    assert meta["patient"] == ""
    assert meta["study"] != original.meta["study"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_behind_transforms_comes_back(suffix, original, tmp_path):
    chain = Compose([Resize((30, 50), mode="bilinear"), Rotate90(), Flip(spatial_axis=1)])
    image = chain(original) * 0.5 + 0.2  # not over the whole range either
    back = READ(str(write(image, tmp_path / f"x{suffix}")))
    exact = suffix.startswith((".tif", ".nii"))
    assert back.shape == image.shape == (1, 50, 30)
    torch.testing.assert_close(back.as_tensor(), image.as_tensor(), atol=0 if exact else HALF_A_STEP, rtol=0)
    assert pixel_spacing(back.meta) == pytest.approx([0.2 * COLUMNS / 50, 0.3 * ROWS / 30])
    assert patient_orientation(back.meta) == patient_orientation(image.meta) == "H\\R"


@pytest.mark.parametrize("levels", [1, 2, 255, 1535, 1023, 4095, 16383, 32767, 65534, 65535])
@pytest.mark.parametrize("suffix", [".png", ".dcm"])
def test_integers_that_fit_are_exact(suffix, levels, tmp_path):
    steps = np.unique(np.linspace(0, levels, 60).astype(int))
    steps = np.append(steps, [steps[0]] * (60 - len(steps)))
    image = MetaTensor(torch.from_numpy(steps / levels).float().reshape(1, 6, 10))
    stored, _ = load(write(image, tmp_path / f"x{suffix}"))
    np.testing.assert_allclose(stored, steps.reshape(6, 10) / levels, atol=6e-8, rtol=0)


def test_levels_are_counted():
    rng = np.random.default_rng(0)
    assert count_levels(np.zeros((3, 4), np.float32)) == 1
    assert count_levels((rng.integers(0, 4096, 9000) / 4095).astype(np.float32)) == 4095
    assert count_levels((np.arange(0, 187) / 186).astype(np.float32)) == 186
    assert count_levels(rng.random((400, 300), dtype=np.float32)) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_flat_image_stays_what_it_is(suffix, value, tmp_path):
    image = MetaTensor(torch.full((1, 5, 7), value))
    back, _ = load(write(image, tmp_path / f"x{suffix}"))
    np.testing.assert_allclose(back, value, atol=HALF_A_STEP)
    assert back.shape == (5, 7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unknown_spacing_stays_unknown(suffix, tmp_path):
    image = READ(make_dicom(tmp_path / "original.dcm"))
    back = READ(str(write(Resize((24, 16))(image), tmp_path / f"x{suffix}")))
    assert np.isnan(back.meta["original_spacing"]).all()
    assert pixel_spacing(back.meta) is None
    assert patient_orientation(back.meta) == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_tells_who_was_imaged(suffix, original, tmp_path):
    path = write(original, tmp_path / f"x{suffix}")
    content = path.read_bytes() if not suffix.endswith(".gz") else bytes(nib.load(path).to_bytes())
    for secret in (*PHI.values(), "CANARY", "original", original.meta["patient"], original.meta["study"]):
        assert secret.encode() not in content


def test_a_capture_is_a_valid_one_of_nobody_dcm(original, tmp_path):
    first, second = (pydicom.dcmread(write(original, tmp_path / name)) for name in ("1.dcm", "2.dcm"))
    source = pydicom.dcmread(tmp_path / "original.dcm")
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert len({first[name].value, second[name].value, source.get(name)}) == 3
    assert first.SOPClassUID.name == "Secondary Capture Image Storage"
    assert (first.PhotometricInterpretation, first.BitsStored) == ("MONOCHROME2", 12)
    assert (str(first.PatientName), first.PatientID, first.AccessionNumber) == ("", "", "")
    assert first.PatientIdentityRemoved == "YES"
    np.testing.assert_array_equal(first.pixel_array, scene())
    program = shutil.which("dciodvfy")
    if program:
        said = subprocess.run([program, "-new", tmp_path / "1.dcm"], capture_output=True, text=True, check=False).stderr
        assert "SCImage" in said
        assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_a_capture_may_be_of_a_pseudonym_or_of_the_patient_dcm(original, tmp_path):
    source = pydicom.dcmread(tmp_path / "original.dcm")
    same = [pydicom.dcmread(write(original, tmp_path / f"{i}.dcm", identity="pseudonym")) for i in range(2)]
    assert same[0].PatientID == original.meta["patient"]
    assert same[0].StudyInstanceUID == same[1].StudyInstanceUID != source.StudyInstanceUID
    assert same[0].SOPInstanceUID != same[1].SOPInstanceUID
    own = pydicom.dcmread(write(original, tmp_path / "own.dcm", identity="source"))
    assert (own.PatientID, own.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert own.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert own.SOPInstanceUID != source.SOPInstanceUID
    assert "PatientIdentityRemoved" not in own


def test_dcmtk_shows_a_capture_as_it_was_written_dcm(original, tmp_path):
    program = shutil.which("dcm2pnm")
    if program is None:
        pytest.skip("needs dcm2pnm: apt-get install dcmtk")
    image = Resize((50, 30))(original)
    write(image, tmp_path / "x.dcm")
    subprocess.run([program, "+Wi", "1", str(tmp_path / "x.dcm"), str(tmp_path / "x.pgm")], check=True)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "x.pgm")) / 255, image[0], atol=1.01 / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".nii.gz", ".dcm"])
def test_it_is_a_writer_of_monai(suffix, original, tmp_path):
    options = {"output_dir": tmp_path / "out", "output_postfix": "", "output_ext": suffix, "separate_folder": False}
    save = SaveImaged("image", writer="cleft_bundle.data.RadiographWriter", print_log=False, **options)
    save({"image": original})
    np.testing.assert_allclose(load(tmp_path / "out" / f"original{suffix}")[0], original[0], atol=1e-7)
    SaveRadiographd("image", print_log=False, **(options | {"output_postfix": "ours"}))({"image": original})
    np.testing.assert_allclose(load(tmp_path / "out" / f"original_ours{suffix}")[0], original[0], atol=1e-7)


def test_an_image_goes_back_to_the_grid_that_it_was_read_on(original, tmp_path):
    turned = Compose([Rotate90(), Flip(spatial_axis=0)])(original)
    SaveRadiograph(tmp_path, "back", ".tif", resample=True, separate_folder=False, print_log=False)(turned)
    image, meta = load(tmp_path / "original_back.tif")
    np.testing.assert_allclose(image, original[0], atol=1e-6)
    np.testing.assert_allclose(meta["original_spacing"], [0.3, 0.2])
    assert meta["patient_orientation"] == "L\\F"


@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
def test_monai_s_own_writers_transpose_as_the_page_says(suffix, original, tmp_path):
    dtype, scale = (np.uint16, 65535) if suffix == ".png" else (np.float32, None)
    options = {"output_postfix": "", "separate_folder": False, "print_log": False}
    SaveImage(tmp_path / "out", output_ext=suffix, output_dtype=dtype, scale=scale, **options)(original)
    np.testing.assert_allclose(load(tmp_path / "out" / f"original{suffix}")[0], original[0].T, atol=2e-5)


def test_other_programs_see_the_picture_upright_and_bright(original, tmp_path):
    picture = np.asarray(Image.open(write(original, tmp_path / "x.png")))
    assert (picture.dtype, picture.min(), picture.max()) == (np.uint16, 0, 65535)
    np.testing.assert_array_equal(np.rint(picture * (4095 / 65535)), scene())
    tiff = Image.open(write(original, tmp_path / "x.tif"))
    np.testing.assert_array_equal(np.asarray(tiff), original[0])
    assert (tiff.tag_v2[282], tiff.tag_v2[283]) == pytest.approx((50.0, 100 / 3))
    volume = nib.load(write(original, tmp_path / "x.nii.gz"))
    assert volume.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_array_equal(volume.get_fdata()[:, :, 0].T, original[0])
    np.testing.assert_allclose(np.diag(volume.affine)[:2], [-0.2, -0.3])


def test_three_equal_channels_are_one(original, tmp_path):
    image = original.repeat(3, 1, 1)
    np.testing.assert_allclose(load(write(image, tmp_path / "x.png"))[0], original[0], atol=1e-7)


def test_a_note_of_an_older_state_of_a_file_does_not_count(original, tmp_path):
    note = Image.open(write(original * 0.5, tmp_path / "x.png")).info["cleft_bundle"]
    assert load(tmp_path / "x.png")[0].max() == pytest.approx(0.5, abs=1e-4)
    whole = {"spacing": None, "shape": [6, 5], "dtype": "float32", "levels": None, "cleft_bundle": 1}
    smaller = np.arange(30, dtype=np.uint16).reshape(6, 5)
    bad = [note, "cleft_bundle", "cleft_bundle {", json.dumps([1, "cleft_bundle"]), json.dumps({"cleft_bundle": {}})]
    bad += [json.dumps(whole | change) for change in (
        {}, {"dtype": "uint16", "levels": 0}, {"dtype": "uint16", "spacing": [0, 1]}, {"dtype": "uint16", "levels": "x"}
    )]  # fmt: skip
    for text in bad:
        Image.fromarray(smaller).save(tmp_path / "y.tif", tiffinfo={270: text})
        image, meta = load(tmp_path / "y.tif")
        np.testing.assert_allclose(image, smaller / 29, atol=1e-6)
        assert np.isnan(meta["original_spacing"]).all()


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        (torch.rand(1, 4, 5) * 3, "x.png", r"x.png: an image of .* values of 0 to 1 are expected"),
        (torch.full((1, 4, 5), float("nan")), "x.tif", "values of 0 to 1 are expected"),
        (torch.rand(2, 4, 5), "x.png", r"\[2, 4, 5\]: \[1, rows, columns\] is expected"),
        (torch.rand(1, 4, 5), "x.jpg", r"x.jpg: the suffix is not known: expected one of .png, "),
        (torch.rand(1, 4, 5), "x", "the suffix is not known"),
    ],
)
def test_what_cannot_be_written_is_an_error_of_one_line(image, name, message, tmp_path):
    with pytest.raises(RadiographError, match=message) as caught:
        SaveRadiograph(output_ext=(tmp_path / name).suffix)(image, filename=tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_file_that_was_read_is_not_overwritten(original, tmp_path):
    before = (tmp_path / "original.dcm").read_bytes()
    save = SaveRadiograph(tmp_path, "", ".dcm", separate_folder=False)
    with pytest.raises(RadiographError, match="was read from: it is not overwritten"):
        save(original)
    assert (tmp_path / "original.dcm").read_bytes() == before


def test_the_extra_is_named(original, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(BundleError, match=r"pip install 'cleft_bundle\[sr\]'"):
        write(original, tmp_path / "x.dcm")
    with pytest.raises(BundleError, match="identity: expected one of none, pseudonym, source, got 'me'"):
        SaveRadiograph(identity="me")
    plain = MetaTensor(torch.rand(1, 4, 5))
    with pytest.raises(RadiographError, match='identity="source": the file that the image was read from is not there'):
        write(plain, tmp_path / "x.dcm", identity="source")
