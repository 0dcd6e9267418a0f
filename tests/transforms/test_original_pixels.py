import json

import numpy as np
import pytest
import torch
from monai.transforms import CastToTyped, Compose, EnsureTyped, Resized
from PIL import Image

from cleft_bundle.data.images.geometry import pixel_spacing
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms import OriginalPixels, build_transforms
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom

SIZE, SQUARE = 224, 24


def plain(value, settings):
    """A part of a config with its references replaced."""
    if isinstance(value, dict):
        return {key: plain(part, settings) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part, settings) for part in value]
    return settings.get(value, value) if isinstance(value, str) else value


def preset_declared(name, size=SIZE, pixel_spacing=None):
    """The deterministic transforms of a preset, as model.pt declares them."""
    train = json.loads((ROOT / "configs" / "train.json").read_text())
    content = train | json.loads((ROOT / "configs" / name).read_text())
    settings = {"@image_size": size, "@image_mean": 0.5, "@image_std": 0.25, "@spacing_fallback": None}
    settings |= {"@pixel_spacing": pixel_spacing, "$@pixel_spacing is None": pixel_spacing is None}
    settings["$@pixel_spacing is not None"] = pixel_spacing is not None
    return plain(content["deterministic_transforms"] + content["network_transforms"], settings)


def preset(name, **settings):
    return OriginalPixels(build_transforms(preset_declared(name, **settings)))


def blocks(image, side=14):
    """A map of an image [3, H, W] that knows patches only: their means, drawn over their pixels, [1, H, W]."""
    patches = torch.nn.functional.avg_pool2d(image[:1], side)
    return torch.nn.functional.interpolate(patches[None], image.shape[-2:], mode="bilinear")[0]


def write(path, image):
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)).save(path)
    return {"image": str(path)}


def check_square(chain, item, shape, corner):
    out, trace = chain.prepare(item)
    assert out["image"].shape == (3, SIZE, SIZE)
    back = chain.restore(blocks(out["image"]), trace)
    assert back.shape == (1, *shape)
    row, column = np.unravel_index(int(back[0].argmax()), shape)
    assert corner[0] <= row < corner[0] + SQUARE
    assert corner[1] <= column < corner[1] + SQUARE


@pytest.mark.parametrize("shape", [(300, 200), (210, 340)])
@pytest.mark.parametrize("where", [(0.25, 0.2), (0.25, 0.7), (0.7, 0.25), (0.6, 0.65)])
@pytest.mark.parametrize("name", ["train.json", "transforms_chest.json"])
def test_a_square_of_a_chest_is_found_where_it_was(name, shape, where, tmp_path):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = 0.3 + 0.15 * np.sin(rows / 9 + columns / 13) * np.cos(columns / 7 - rows / 31)
    image[: shape[0] // 10] = image[:, : shape[1] // 12] = 0  # shutters, on two sides only
    corner = int(where[0] * shape[0]), int(where[1] * shape[1])
    image[corner[0] : corner[0] + SQUARE, corner[1] : corner[1] + SQUARE] = 1
    check_square(preset(name), write(tmp_path / "x.png", image), shape, corner)


@pytest.mark.parametrize("shape", [(400, 300), (360, 420)])
@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize("where", [(0.3, 0.1), (0.6, 0.2)])
def test_a_square_of_a_mammogram_is_found_where_it_was(shape, chest_wall, where, tmp_path, draw_mammogram):
    image = draw_mammogram(shape, chest_wall=chest_wall, noise=0.005).image * 0.7
    corner = int(where[0] * shape[0]), int(where[1] * shape[1])
    if chest_wall == "right":
        corner = corner[0], shape[1] - corner[1] - SQUARE
    image[corner[0] : corner[0] + SQUARE, corner[1] : corner[1] + SQUARE] = 1
    check_square(preset("transforms_mammography.json"), write(tmp_path / "x.png", image), shape, corner)


@pytest.mark.parametrize("stored", ["L\\F", "R\\F", "F\\L", "R\\H", "H\\R"])
@pytest.mark.parametrize("millimetres", [None, 1.0])
def test_a_square_of_a_turned_chest_in_millimetres_is_found_where_it_was(stored, millimetres, tmp_path):
    shape, corner = (300, 220), (180, 40)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = 0.3 + 0.15 * np.sin(rows / 9 + columns / 13) * np.cos(columns / 7 - rows / 31)
    image[corner[0] : corner[0] + SQUARE, corner[1] : corner[1] + SQUARE] = 1
    pixels = np.rint(image * 4095).astype(np.uint16)
    path = make_dicom(tmp_path / "x", pixels, PatientOrientation=stored.split("\\"), PixelSpacing=[0.7, 0.7])
    chain = preset("transforms_chest.json", pixel_spacing=millimetres)
    out, trace = chain.prepare({"image": path})
    assert (trace.meta["orientation_applied"] == "none") == (stored == "L\\F")
    check_square(chain, {"image": path}, shape, corner)
    if millimetres:
        assert pixel_spacing(trace.meta) == pytest.approx((1.0, 1.0), rel=0.01)
        assert out["image"].shape[1:] == (SIZE, SIZE)


@pytest.mark.parametrize("stored", ["A\\R", "P\\R", "L\\P", "R\\A"])
@pytest.mark.parametrize("millimetres", [None, 0.5])
def test_a_square_of_a_turned_mammogram_is_found_where_it_was(stored, millimetres, tmp_path, draw_mammogram):
    image = draw_mammogram((400, 300), noise=0.005).image * 0.7
    image[130 : 130 + SQUARE, 40 : 40 + SQUARE] = 1
    turns = {"A\\R": lambda x: x, "P\\R": np.fliplr, "L\\P": np.rot90, "R\\A": np.transpose}
    place = turns[stored](np.arange(image.size).reshape(image.shape) == 130 * 300 + 40)
    far = turns[stored](np.arange(image.size).reshape(image.shape) == (130 + SQUARE - 1) * 300 + 40 + SQUARE - 1)
    corner = np.minimum(np.argwhere(place)[0], np.argwhere(far)[0])
    pixels = np.ascontiguousarray(turns[stored](np.rint(image * 4095).astype(np.uint16)))
    tags = {"Modality": "MG", "ViewPosition": "CC", "ImageLaterality": "L", "PixelSpacing": [0.25, 0.25]}
    path = make_dicom(tmp_path / "x", pixels, PatientOrientation=stored.split("\\"), **tags)
    chain = preset("transforms_mammography.json", pixel_spacing=millimetres)
    check_square(chain, {"image": path}, pixels.shape, corner)


def test_what_was_cropped_away_gets_the_lowest_value(tmp_path, draw_mammogram):
    scene = draw_mammogram()
    chain = preset("transforms_mammography.json")
    _, trace = chain.prepare(write(tmp_path / "x.png", scene.image))
    maps = (
        torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - torch.tensor([5.0, -5.0])[:, None, None]
    )
    back = chain.restore(maps, trace)
    for whole, part in zip(back, maps, strict=True):
        assert whole[0, -1] == pytest.approx(float(part.min()))  # a corner of air
        assert whole.max() <= part.max() + 1e-5


def test_an_item_from_another_process_comes_back(tmp_path, chest):
    item = write(tmp_path / "x.png", chest)
    _, trace = preset("transforms_chest.json").prepare(item)
    assert preset("transforms_chest.json").restore(torch.zeros(1, SIZE, SIZE), trace).shape == (1, *chest.shape)


def test_maps_of_another_size_are_refused(tmp_path, chest):
    chain = preset("transforms_chest.json")
    _, trace = chain.prepare(write(tmp_path / "x.png", chest))
    with pytest.raises(BundleError, match=r"expected \[K, 224, 224\] like the image, got \(1, 16, 16\)"):
        chain.restore(torch.zeros(1, 16, 16), trace)


def test_transforms_that_move_pixels_without_metadata_are_refused():
    item = {"image": torch.zeros(1, 8, 8)}
    drop = EnsureTyped("image", track_meta=False)
    with pytest.raises(BundleError, match="plain tensors from the start"):
        OriginalPixels([drop]).prepare(item)
    kept = EnsureTyped("image", track_meta=True)
    late = Compose([kept, Compose([drop, CastToTyped("image"), Resized("image", (4, 4))])])
    with pytest.raises(BundleError, match="Resized moves pixels after"):
        OriginalPixels(late).prepare(item)
