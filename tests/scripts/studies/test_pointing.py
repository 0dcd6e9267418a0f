import numpy as np
import pytest
import torch
from monai.transforms import EnsureChannelFirstd, EnsureTyped, LoadImaged, Resized, SpatialPadd
from PIL import Image
from studies.pointing import explain, play

from cleft_bundle.data import RadiographReader
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.networks.heat_maps import pixel_map
from cleft_bundle.transforms import GreyToRGBd, OriginalPixels
from tests.conftest import TINY_VIT

SIZE = 56


@pytest.fixture
def transforms():
    return OriginalPixels(
        [
            LoadImaged("image", reader=RadiographReader()),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            Resized("image", SIZE, size_mode="longest", mode="area"),
            SpatialPadd("image", (SIZE, SIZE)),
            GreyToRGBd("image"),
            EnsureTyped("image", track_meta=False),
        ]
    )


@pytest.fixture
def items(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for number, shape in enumerate([(80, 60), (50, 90), (56, 56)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray((rng.random(shape) * 255).astype(np.uint8)).save(path)
        item = {"image": str(path), "name": path.name, "patient_id": str(number)}
        boxes = [[0, 0, shape[1], shape[0]], [5, 5, 1, 1]]
        found.append(item | ({"boxes": boxes, "box_findings": ["all", "dot"]} if number else {}))
    return found


@pytest.fixture
def network():
    return ImageEncoder(TINY_VIT, embedding_dim=8)


def mapper(network, *directions, method="attention"):
    return lambda image: pixel_map(network, image, torch.stack(directions), method)


def direction(seed):
    return torch.randn(8, generator=torch.Generator().manual_seed(seed))


def test_maps_have_the_size_of_their_files(network, items, transforms):
    maps = explain(items, transforms, mapper(network, direction(0), direction(1)), batch_size=2)
    assert [found.shape for _, found in maps] == [(2, 80, 60), (2, 50, 90), (2, 56, 56)]


def test_the_game_is_played_where_boxes_are(network, items, transforms):
    both = mapper(network, direction(0), direction(1), method="occlusion")
    table = play(items, transforms, both, ["all", "x"], tolerances=(0, 3))
    assert list(table["name"]) == ["1.png", "1.png", "2.png", "2.png"]
    assert set(table["finding"]) == {"all"}
    assert list(table["tolerance"]) == [0, 3, 0, 3]
    assert (table[["hit", "chance"]] == 1).all().all()
    table = play(items, transforms, mapper(network, direction(0), method="similarity"), ["dot"])
    assert ((table["chance"] > 0) & (table["chance"] < 0.2)).all()
    with pytest.raises(BundleError, match="none of 3 items has a box of x"):
        play(items, transforms, both, ["x", "x"])
