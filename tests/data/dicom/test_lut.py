"""Look-up tables of every kind of declaration, as dcm2pnm shows them."""

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from cleft_bundle.data.dicom.lut import palette_to_rgb, read_table
from cleft_bundle.errors import RadiographError
from tests.data import raw_dicom
from tests.data.radiographs import load

SIZE = 64
RESCALES = {"none": None, "shifted": ("1", "-1024"), "doubled": ("2", "0")}
# bits of an entry, number of entries
TABLES = {"8 bit": (8, 256), "16 bit": (16, 3000), "65536": (16, 65536)}
FIRSTS = (-1000, 100)
PIXELS = {False: np.arange(4096), True: np.arange(4096) - 2048}


def table_elements(kind, vr, first, modality=False):
    bits, count = TABLES[kind]
    entries = np.sort(np.random.default_rng(5).integers(0, 2**bits, count))
    data = entries.astype("u1" if bits == 8 else "<u2").tobytes()
    kind_of_data = "US" if kind == "16 bit" else "OW"  # a value of VR US holds 65,534 bytes at most
    explained = [(0x00283004, "LO", "US")] if modality else []
    return [(0x00283002, vr, [count, first, bits]), *explained, (0x00283006, kind_of_data, data)]


def write(path, signed, rescale, vr, kind, first, mono, explicit, sequence=0x00283010):
    cells = PIXELS[signed].astype("<i2").tobytes()
    elements = raw_dicom.grey(SIZE, SIZE, cells, signed=signed, mono=mono)
    if RESCALES[rescale]:
        slope, intercept = RESCALES[rescale]
        elements += [(0x00281052, "DS", intercept), (0x00281053, "DS", slope), (0x00281054, "LO", "US")]
    modality = sequence == 0x00283000
    elements.append(raw_dicom.sequence(explicit, sequence, *table_elements(kind, vr, first, modality)))
    return raw_dicom.write(path, elements, explicit)


def dcmtk_shows(path, *options):
    target = f"{path}.pgm"
    command = ["dcm2pnm", "--write-16-bit-pnm", *options, path, target]
    subprocess.run(command, check=True, capture_output=True)
    values = Path(target).read_text().split()[4:]  # plain PGM: P2, width, height, top, values
    return np.array(values, float).reshape(SIZE, SIZE)


needs_dcmtk = pytest.mark.skipif(not shutil.which("dcm2pnm"), reason="needs dcmtk: dcm2pnm is not on PATH")


@needs_dcmtk
@pytest.mark.slow
@pytest.mark.parametrize("mono", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_voi_tables_of_every_declaration_look_as_dcmtk_shows_them(tmp_path, signed, mono):
    wrong, blank = [], 0
    declarations = list(itertools.product(RESCALES, ["US", "SS"], TABLES, FIRSTS, [False, True]))
    for rescale, vr, kind, first, explicit in declarations:
        path = write(tmp_path / "x", signed, rescale, vr, kind, first, mono, explicit)
        shown = dcmtk_shows(path, "+Wl", "1")
        blank += len(np.unique(shown)) == 1
        # dcmtk moves entries of 8 bits to the top of 16 instead of stretching them
        image = load(path, voi="lut")[0] * (65535 if kind != "8 bit" else 65280)
        offset = 255 if kind == "8 bit" and mono == "MONOCHROME1" else 0
        if np.abs(image + offset - shown).max() > 1.01:
            wrong.append((rescale, vr, kind, first, "explicit" if explicit else "implicit"))
    assert not wrong
    assert blank < len(declarations) / 2  # the test would see nothing in blank pictures


@needs_dcmtk
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_modality_tables_look_as_dcmtk_shows_them(tmp_path, signed):
    for vr, first, explicit in itertools.product(["US", "SS"], FIRSTS, [False, True]):
        path = write(tmp_path / "x", signed, "none", vr, "65536", first, "MONOCHROME2", explicit, 0x00283000)
        shown = dcmtk_shows(path, "+Wm", "+Wfl")
        np.testing.assert_allclose(load(path, voi="none")[0] * 65535, shown, atol=1.01, err_msg=f"{vr} {first}")


# The three files of the report: each looks the same, and none is black
@pytest.mark.parametrize(
    ("signed", "intercept", "vr", "first", "explicit"),
    [(True, None, "US", 63488, True), (False, "-1024", "US", 64512, False), (False, "-1024", "US", 64512, True)],
)
def test_a_negative_first_value_shows_a_ramp(tmp_path, signed, intercept, vr, first, explicit):
    elements = raw_dicom.grey(SIZE, SIZE, PIXELS[signed].astype("<i2").tobytes(), signed=signed)
    elements += [(0x00281052, "DS", intercept), (0x00281053, "DS", "1")] if intercept else []
    table = [(0x00283002, vr, [4096, first, 12]), (0x00283006, "OW", np.arange(4096).astype("<u2").tobytes())]
    elements.append(raw_dicom.sequence(explicit, 0x00283010, *table))
    image, meta = load(raw_dicom.write(tmp_path / "x", elements, explicit))
    np.testing.assert_allclose(image.ravel(), np.arange(4096) / 4095, atol=1e-6)
    assert meta["voi_applied"] == "lut 1"


def palette(first, bits=16):
    ds = Dataset()
    for colour, top in (("Red", 60000), ("Green", 30000), ("Blue", 10000)):
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, first, bits])
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", np.linspace(0, top, 256).astype("<u2").tobytes())
    return ds


@pytest.mark.parametrize(("signed", "first"), [(True, 65536 - 128), (False, 100)])
def test_a_palettes_first_value_has_the_sign_of_the_pixels(signed, first):
    pixels = np.arange(256).reshape(16, 16) + (-128 if signed else 100)
    colour = palette_to_rgb(palette(first), pixels, signed)
    np.testing.assert_array_equal(colour[..., 0].ravel(), np.linspace(0, 60000, 256).astype(int))
    np.testing.assert_array_equal(colour[..., 2].ravel(), np.linspace(0, 10000, 256).astype(int))


@pytest.mark.parametrize("little", [True, False])
def test_two_entries_of_eight_bits_lie_in_a_word(little):
    entries = np.arange(0, 200, 2, dtype=np.uint8)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [100, 65436, 8])
    item.add_new("LUTData", "OW", (entries if little else entries.reshape(-1, 2)[:, ::-1]).tobytes())
    table = read_table(item, little, signed=True)
    np.testing.assert_array_equal(table.entries, entries)
    assert table.first == -100


def test_a_count_of_zero_is_65536_and_data_of_another_sign_are_unsigned():
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [0, -32768, 16])
    item.add_new("LUTData", "SS", list(range(-32768, 32768)))
    table = read_table(item, signed=True)
    assert (len(table.entries), table.first) == (65536, -32768)
    np.testing.assert_array_equal(table.entries[:3], [32768, 32769, 32770])


def test_a_palette_in_segments_is_refused_by_name(tmp_path):
    elements = raw_dicom.grey(4, 4, bytes(16), bits=8, mono="PALETTE COLOR", allocated=8)
    for number in range(3):
        elements.append((0x00281101 + number, "US", [256, 0, 16]))
        elements.append((0x00281221 + number, "OW", [0, 1, 0, 1, 255, 65535]))
    message = r"\(0028,1221\) SegmentedRedPaletteColorLookupTableData: palettes in segments .* are not read"
    with pytest.raises(RadiographError, match=message):
        load(raw_dicom.write(tmp_path / "x", elements))
