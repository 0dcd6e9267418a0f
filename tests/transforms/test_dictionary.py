import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Resized

from cleft_bundle import transforms
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms import (
    CropBreast,
    CropBreastd,
    CropCollimationd,
    GreyToRGBd,
    NormalizeForBackboned,
    OrientBreastd,
    OrientRadiographd,
    PadToSquared,
    RandBreastFlipd,
    RandWindowd,
    RemoveMarkersd,
    ResampleToSpacingd,
    WindowPercentiled,
)

VIT = {"model_type": "vit"}
PAIRS = {
    CropBreastd: {},
    CropCollimationd: {},
    GreyToRGBd: {},
    NormalizeForBackboned: {"backbone": VIT},
    OrientBreastd: {},
    OrientRadiographd: {},
    PadToSquared: {},
    RandBreastFlipd: {"prob": 1.0},
    RandWindowd: {"prob": 1.0},
    RemoveMarkersd: {},
    ResampleToSpacingd: {"pixel_spacing": 2.5},
    WindowPercentiled: {},
}


def seeded(transform):
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(0)
    return transform


@pytest.mark.parametrize(("dictionary", "arguments"), PAIRS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_pair_does_the_same_under_all_its_names(dictionary, arguments, draw_mammogram):
    name = dictionary.__name__[:-1]
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
    image = draw_mammogram(chest_wall="right").tensor
    image = image.repeat(3, 1, 1) if name.startswith("Normalize") else image
    expected = seeded(getattr(transforms, name)(**arguments))(image)
    item = {"image": image, "other": 5}
    out = seeded(dictionary(keys="image", **arguments))(item)
    np.testing.assert_array_equal(out["image"], expected)
    assert out["other"] == 5
    assert item["image"] is image
    assert set(dictionary(keys="gone", allow_missing_keys=True, **arguments)(item)) == {"image", "other"}
    with pytest.raises(KeyError, match="gone"):
        dictionary(keys="gone", **arguments)(item)


def test_a_mask_goes_with_its_image_and_both_come_back(draw_mammogram):
    scene = draw_mammogram(chest_wall="right")
    item = {"image": scene.tensor, "mask": torch.from_numpy(scene.breast.copy())[None].float()}
    keys = ("image", "mask")
    chain = Compose([CropBreastd(keys), OrientBreastd(keys), RandBreastFlipd(keys, prob=1.0), PadToSquared(keys)])
    out = chain(item)
    assert out["mask"].shape == out["image"].shape
    assert ((out["image"] > 0) == (out["mask"] > 0)).all()
    back = chain.inverse(out)
    np.testing.assert_array_equal(back["mask"], item["mask"])


def test_the_source_decides_for_all(draw_mammogram):
    scene = draw_mammogram(chest_wall="right")
    item = {"image": scene.tensor, "prior": scene.tensor.flip(-1)}
    crop = CropBreastd(("prior", "image"), source_key="image")(item)
    assert crop["prior"].shape == crop["image"].shape
    orient = OrientBreastd(("prior", "image"), source_key="image")(item)
    np.testing.assert_array_equal(orient["prior"], scene.tensor)


def test_a_flip_changes_side_and_caption_with_the_picture_and_back(draw_mammogram):
    image = MetaTensor(draw_mammogram().tensor, meta={"laterality": "L"})
    item = {"image": image, "laterality": "L", "caption": "mammogram of the left breast; LEFT axilla. Right: none"}
    flip = RandBreastFlipd("image", prob=1.0)
    out = flip(item)
    assert (out["laterality"], out["image"].meta["laterality"]) == ("R", "R")
    assert out["caption"] == "mammogram of the right breast; RIGHT axilla. Left: none"
    back = flip.inverse(out)
    assert {key: back[key] for key in ("laterality", "caption")} == {
        key: item[key] for key in ("laterality", "caption")
    }
    np.testing.assert_array_equal(back["image"], image)
    still = RandBreastFlipd("image", prob=0.0)
    assert still(item)["caption"] == item["caption"]
    assert still.inverse(still(item))["laterality"] == "L"


@pytest.mark.parametrize("side", ["B", ""])
def test_a_side_that_is_none_stays(side, draw_mammogram):
    out = RandBreastFlipd("image", prob=1.0)({"image": draw_mammogram().tensor, "laterality": side})
    assert out["laterality"] == side


def test_all_images_of_an_item_get_one_window(chest):
    out = RandWindowd(("a", "b"), prob=1.0)({"a": chest[None], "b": chest[None]})
    torch.testing.assert_close(out["a"], out["b"])
    assert not np.array_equal(out["a"][0], chest)


def test_compose_seeds_the_random_ones(chest):
    one, two = (
        Compose([RandWindowd("image", prob=1.0)]).set_random_state(3)({"image": chest[None]})["image"] for _ in range(2)
    )
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("workers", [0, 1])
def test_maps_of_a_batch_come_back_each_to_its_image(workers, draw_mammogram):
    items = [{"image": draw_mammogram(chest_wall=side, top_edge=side == "left").tensor} for side in ("right", "left")]
    resize = Resized("image", (64, 64), mode="area")
    chain = Compose([CropBreastd("image"), OrientBreastd("image"), PadToSquared("image"), resize])
    (batch,) = DataLoader(Dataset(items, chain), batch_size=2, num_workers=workers)
    backs = [chain.inverse({"image": image})["image"] for image in decollate_batch(batch["image"])]
    for back, item in zip(backs, items, strict=True):
        assert back.shape == item["image"].shape
        assert np.corrcoef(back.flatten(), item["image"].flatten())[0, 1] > 0.9


def test_the_affine_follows_the_pixels_and_comes_back(draw_mammogram):
    affine = np.diag([0.1, 0.2, 1.0, 1.0])
    image = MetaTensor(draw_mammogram(chest_wall="right").tensor, affine=affine)
    chain = Compose([CropBreastd("image"), OrientBreastd("image")])
    out = chain({"image": image})["image"]
    rows, columns = CropBreast().box(image)
    corner = out.affine.numpy() @ [0, 0, 0, 1]  # the first pixel is what was the last of its row
    np.testing.assert_allclose(corner[:2], [rows.start * 0.1, (columns.stop - 1) * 0.2], rtol=1e-6)
    np.testing.assert_allclose(chain.inverse({"image": out})["image"].affine, affine, atol=1e-9)


def test_lazy_pipelines_give_what_others_give(draw_mammogram):
    item = {"image": draw_mammogram(chest_wall="right").tensor}
    steps = [CropBreastd("image"), OrientBreastd("image"), Resized("image", (64, 64), mode="nearest")]
    plain, lazy = Compose(steps)(item)["image"], Compose(steps[:2], lazy=True)(item)["image"]
    np.testing.assert_array_equal(Compose(steps[2:])({"image": lazy})["image"], plain)


@pytest.mark.parametrize("build", [CropBreastd, CropCollimationd, OrientBreastd, OrientRadiographd, ResampleToSpacingd])
def test_an_item_without_the_source_is_left_or_refused(build, draw_mammogram):
    arguments = {"source_key": "image"} | ({"pixel_spacing": 2.0} if build is ResampleToSpacingd else {})
    item = {"mask": draw_mammogram().tensor}
    lenient = build(("image", "mask"), allow_missing_keys=True, **arguments)
    assert lenient(item)["mask"] is item["mask"]
    assert lenient.inverse(lenient(item))["mask"] is item["mask"]
    with pytest.raises(KeyError, match=r"source_key `image` of transform `.*d` was missing in the data"):
        build("mask", **arguments)(item)


def test_a_flip_of_an_item_without_images(draw_mammogram):
    flip = RandBreastFlipd("image", prob=1.0, allow_missing_keys=True)
    assert flip.inverse({"other": 5}) == {"other": 5}
    with pytest.raises(RadiographError, match="channels, rows, columns"):
        RandBreastFlipd("image", prob=1.0)({"image": draw_mammogram().tensor[0]})


def test_a_mask_is_resampled_with_its_image_and_back():
    image = MetaTensor(torch.rand(1, 40, 30), affine=np.diag([0.5, 1.0, 1.0, 1.0]))
    mask = (torch.rand(1, 40, 30) > 0.5).float()
    resample = ResampleToSpacingd(("image", "mask"), 2.0, source_key="image", mode=("area", "nearest-exact"))
    out = resample({"image": image, "mask": mask})
    assert out["image"].shape == out["mask"].shape == (1, 10, 15)
    torch.testing.assert_close(out["image"].as_tensor(), torch.nn.functional.avg_pool2d(image.as_tensor(), (4, 2)))
    assert set(out["mask"].unique().tolist()) <= {0.0, 1.0}
    back = resample.inverse(out)
    assert back["image"].shape == (1, 40, 30)
    np.testing.assert_allclose(back["image"].affine, image.affine)
    with pytest.raises(RadiographError, match=r"'mask' is \[5, 5\], but 'image' is \[40, 30\]"):
        resample({"image": image, "mask": torch.rand(1, 5, 5)})
    for wrong in (0, -1.0, "2", True):
        with pytest.raises(BundleError, match="pixel_spacing: expected a positive number, got"):
            ResampleToSpacingd("image", wrong)
