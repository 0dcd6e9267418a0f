import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixel_data_handlers import util as pydicom_util
from pydicom.uid import ExplicitVRLittleEndian

from cleft_bundle.data.dicom import pixels as dicom_pixels
from cleft_bundle.data.dicom.layout import Layout
from cleft_bundle.data.dicom.lut import Table, apply_table, read_table
from cleft_bundle.data.dicom.pixels import percentiles
from cleft_bundle.data.dicom.voi import window_linear, window_linear_exact, window_sigmoid
from cleft_bundle.errors import RadiographError

WINDOWS = [window_linear, window_linear_exact, window_sigmoid]
FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID"]


def header(**elements):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    defaults = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    for name, value in (defaults | {"PhotometricInterpretation": "MONOCHROME2"} | elements).items():
        setattr(ds, name, value)
    return ds


def render(raw, ds, voi=0, **options):
    """The image alone; by default by the first window, whatever it shows."""
    return dicom_pixels.render(raw, ds, voi=voi, **options).image


def table_item(entries, first=0, bits=12):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", [int(e) for e in entries])
    return item


def standard_window(x, c, w, function):
    """The formulas of PS3.3 C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1 as printed, for ymin 0 and ymax 1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR":
        if x <= c - 0.5 - (w - 1) / 2:
            return 0.0
        return 1.0 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5
    if x <= c - w / 2:
        return 0.0
    return 1.0 if x > c + w / 2 else (x - c) / w + 0.5


@pytest.mark.parametrize(("window", "function"), list(zip(WINDOWS, FUNCTIONS, strict=True)))
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (0, 100), (100.5, 1), (2653, 900), (0, 2)])
def test_windows_equal_the_standards_formulas(window, function, center, width):
    values = np.arange(-50.0, 4200.0, 7.5)
    expected = [standard_window(x, center, width, function) for x in values]
    np.testing.assert_allclose(window(values, center, width), expected, atol=1e-12)


# The first is the example of PS3.3 C.11.2.1.2.1 (centre 2048, width 4096), the second its narrowest window.
def test_window_linear_equals_the_standards_examples():
    x = np.array([-1.0, 0, 1000, 2047, 4095, 5000])
    np.testing.assert_allclose(window_linear(x, 2048, 4096), np.clip(x / 4095, 0, 1))
    np.testing.assert_array_equal(window_linear(np.array([-1.0, 0, 1]), 0, 1), [0, 1, 1])


@pytest.mark.parametrize("window", WINDOWS)
@given(
    values=st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=30),
    center=st.floats(-1e5, 1e5),
    width=st.floats(1, 1e5),
)
def test_windows_are_monotone_and_stay_in_range(window, values, center, width):
    shown = window(np.sort(values), center, width)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert (np.diff(shown) >= 0).all()


@pytest.mark.parametrize(("window", "width"), list(zip(WINDOWS, [0.5, 0, -1], strict=True)))
def test_a_width_that_the_standard_forbids_names_the_tag(window, width):
    with pytest.raises(RadiographError, match=r"\(0028,1051\) WindowWidth"):
        window(np.zeros(2), 0, width)


@given(stored=st.integers(2, 16), shift=st.integers(0, 14), signed=st.booleans(), data=st.data())
def test_unused_bits_never_change_a_value(stored, shift, signed, data):
    shift = min(shift, 16 - stored)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    value, noise = data.draw(st.integers(low, high)), data.draw(st.integers(0, 65535))
    mask = ((1 << stored) - 1) << shift
    cell = np.array([((value << shift) & mask) | (noise & ~mask & 0xFFFF)], np.uint16)
    assert Layout(stored, stored + shift - 1, signed).unpack(cell).tolist() == [value]


@given(st.lists(st.integers(-5, 40), min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_of_a_histogram_equal_numpys(sample, q):
    values, counts = np.unique(sample, return_counts=True)
    got = percentiles(values[::-1].astype(float), counts[::-1], [q])[0]
    assert got == pytest.approx(np.percentile(sample, q), abs=1e-9)


def test_percentiles_leave_out_values_that_do_not_occur():
    assert percentiles(np.array([0.0, 5, 9]), np.array([0, 2, 0]), [0, 100]) == [5, 5]


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("first", [0, 100])
def test_tables_equal_pydicoms(kind, first):
    entries = np.random.default_rng(0).integers(0, 4096, 300)
    ds = header(**{kind: [table_item(entries, first, bits=16)]})
    values = np.arange(0, 600, dtype=np.uint16)
    apply = pydicom_util.apply_voi if kind == "VOILUTSequence" else pydicom_util.apply_modality_lut
    # pydicom subtracts the first entry's value in the array's own type, which must hold what comes out
    expected = apply(values.astype(np.int32), ds)
    np.testing.assert_array_equal(apply_table(values, read_table(ds[kind][0])), expected)


@pytest.mark.parametrize(("dtype", "little"), [("<u2", True), (">u2", False), ("u1", True)])
def test_tables_given_as_bytes(dtype, little):
    entries = np.arange(0, 200, 2)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [100, 5, 8])
    item.add_new("LUTData", "OW", entries.astype(dtype).tobytes())
    table = read_table(item, little)
    np.testing.assert_array_equal(table.entries, entries)
    assert (table.first, table.maximum) == (5, 255)


def test_a_short_table_names_the_tag():
    item = table_item(range(10))
    item.LUTDescriptor = [20, 0, 12]
    with pytest.raises(RadiographError, match=r"\(0028,3006\) LUTData holds 10 of 20"):
        read_table(item)


def test_inputs_far_beyond_a_table_take_its_last_entry():
    table = Table(np.array([3.0, 4.0, 5.0]), 10, 255)
    np.testing.assert_array_equal(apply_table(np.array([-1e6, 10, 11, 70000]), table), [3, 3, 4, 5])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("index", [0, 1])
def test_rendering_follows_pydicom_through_rescale_and_window(function, index):
    ds = header(
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[500, 2000],
        WindowWidth=[900, 3000],
        VOILUTFunction=function,
    )
    raw = np.random.default_rng(1).integers(0, 4096, (30, 20), dtype=np.uint16)
    expected = pydicom_util.apply_windowing(pydicom_util.apply_modality_lut(raw, ds), ds, index)
    low, high = -1000, 2 * 4095 - 1000  # pydicom's output range
    got = render(raw, ds, voi=index)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (expected - low) / (high - low), atol=1e-6)


def test_choice_between_windows_and_tables():
    raw = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    item = table_item(np.arange(4095, -1, -1))
    ds = header(WindowCenter=2048, WindowWidth=4096, VOILUTSequence=[item])
    window, table = raw / 4095, 1 - raw / 4095
    np.testing.assert_allclose(render(raw, ds), window, atol=1e-6)
    np.testing.assert_allclose(render(raw, ds, voi="lut"), table, atol=1e-6)
    del ds.WindowCenter, ds.WindowWidth
    np.testing.assert_allclose(render(raw, ds), table, atol=1e-6)
    np.testing.assert_allclose(render(raw, ds, voi="none"), window, atol=1e-6)
    with pytest.raises(RadiographError, match=r"VOILUTSequence has 1 items"):
        render(raw, ds, voi=1)


def test_a_window_that_the_file_does_not_have_names_the_tag():
    with pytest.raises(RadiographError, match=r"\(0028,1050\) WindowCenter has 1 values; no. 2"):
        render(np.zeros((2, 2), np.uint16), header(WindowCenter=1, WindowWidth=2), voi=2)


@pytest.mark.parametrize(
    "bad", [{"WindowWidth": [1, 2]}, {"WindowWidth": None}, {"VOILUTFunction": "CUBIC"}, {"RescaleSlope": 0}]
)
def test_elements_that_contradict_each_other_are_named(bad):
    ds = header(**({"WindowCenter": 10, "WindowWidth": 20} | bad))
    with pytest.raises(RadiographError, match=r"^\(0028,1\d{3}\) " + next(iter(bad))):
        render(np.zeros((2, 2), np.uint16), ds)


@pytest.mark.parametrize("voi", [0, "percentile", "none"])
def test_both_polarities_show_one_scene_alike(voi):
    scene = np.random.default_rng(2).integers(0, 4096, (40, 30), dtype=np.uint16)
    low = render(4095 - scene, header(PhotometricInterpretation="MONOCHROME1"), voi=voi)
    np.testing.assert_allclose(low, render(scene, header(), voi=voi), atol=1e-6)
    both = header(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(low, render(4095 - scene, both, voi=voi))
    inverse = header(PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(low, render(4095 - scene, inverse, voi=voi))


@given(st.integers(0, 4095), st.integers(1, 4095))
def test_inverting_twice_changes_nothing(center, width):
    raw = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    window = {"WindowCenter": center, "WindowWidth": width}
    plain, inverted = (render(raw, header(**window, PhotometricInterpretation=f"MONOCHROME{n}")) for n in (2, 1))
    np.testing.assert_allclose(1 - inverted, plain, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("voi", [0, "percentile"])
def test_padding_is_black_and_outside_the_range(photometric, voi):
    raw = np.full((20, 20), 4000, np.uint16)
    raw[:10, :10] = np.arange(1000, 1100).reshape(10, 10)
    ds = header(PhotometricInterpretation=photometric, PixelPaddingValue=3990, PixelPaddingRangeLimit=4010)
    got = render(raw, ds, voi=voi, percentile_range=(0, 100))
    assert (got[10:] == 0).all()
    assert (got[:10, :10].min(), got[:10, :10].max()) == (0, 1)


def test_padding_of_a_signed_image_written_as_unsigned():
    raw = np.array([[-2000, 0, 500, 1000]], np.int16)
    ds = header(BitsStored=16, HighBit=15, PixelRepresentation=1, PixelPaddingValue=-2000)
    ds["PixelPaddingValue"].value = 65536 - 2000
    np.testing.assert_allclose(render(raw, ds), [[0, 0, 0.5, 1]])


def test_an_image_of_one_value_is_black():
    assert not render(np.full((3, 3), 7, np.uint16), header()).any()
    assert not render(np.full((3, 3), 7, np.uint16), header(PixelPaddingValue=7)).any()


def test_wide_pixels_take_the_same_path():
    narrow = np.random.default_rng(3).integers(0, 4096, (20, 20), dtype=np.uint16)
    wide = header(BitsAllocated=32, WindowCenter=1000, WindowWidth=900)
    np.testing.assert_array_equal(
        render(narrow.astype(np.uint32), wide), render(narrow, header(WindowCenter=1000, WindowWidth=900))
    )


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": 1},
        {"PixelIntensityRelationship": "LIN", "PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_detector_signal_becomes_density_by_the_logarithm(elements):
    thickness = np.linspace(0, 3, 400).reshape(20, 20)
    beam = np.rint(4000 * np.exp(-thickness)).astype(np.uint16)
    got = render(beam, header(**elements), log=True, percentile_range=(0, 100))
    assert (np.diff(got.ravel()) >= 0).all()
    assert (got.ravel()[0], got.ravel()[-1]) == (0, 1)
    minus = header(PixelIntensityRelationship="LIN", PixelIntensityRelationshipSign=-1)
    np.testing.assert_allclose(render(4000 - beam, minus, log=True, percentile_range=(0, 100)), got, atol=0.02)


def test_luminance_of_grey_is_the_grey():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(dicom_pixels.luminance(np.stack([grey] * 3, -1)), grey, atol=1e-9)
    assert dicom_pixels.luminance(np.array([[[0, 255, 0]]], np.uint8))[0, 0] == pytest.approx(0.587 * 255)


@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 400)),
    stored=st.integers(2, 16),
    shift=st.integers(0, 14),
    signed=st.booleans(),
    inverted=st.booleans(),
    padding=st.integers(-(2**15), 2**16 - 1),
    window=st.tuples(st.integers(-5000, 70000), st.integers(1, 70000)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_the_whole_chain_equals_its_stages_one_after_the_other(
    shape, stored, shift, signed, inverted, padding, window, seed
):
    high_bit = stored - 1 + min(shift, 16 - stored)
    # above the high bit lies nothing: what lies there is a matter of tests/data/test_dicom_layout.py
    raw = np.random.default_rng(seed).integers(0, 2 ** (high_bit + 1), shape, dtype=np.uint16)
    ds = header(BitsStored=stored, HighBit=high_bit, PixelRepresentation=int(signed))
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = 0.5, -100
    ds.WindowCenter, ds.WindowWidth = window
    ds.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    layout = Layout(stored, high_bit, signed)
    values = layout.unpack(raw)
    expected = window_linear(values * 0.5 - 100, *window)
    expected = np.where(dicom_pixels.padding_mask(raw, ds, layout, 16), 0, abs(expected - inverted))
    got = render(raw.view(np.int16) if signed else raw, ds)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 300_000])
def test_blocks_join_without_a_seam(size):
    raw = np.random.default_rng(4).integers(0, 4096, (1, size), dtype=np.uint16)
    np.testing.assert_allclose(render(raw, header(PixelPaddingValue=5), voi="none") > 0, (raw > raw.min()) & (raw != 5))
    shown = render(raw, header(), voi="none")
    np.testing.assert_allclose(shown, (raw - raw.min()) / max(np.ptp(raw), 1), atol=1e-6)
