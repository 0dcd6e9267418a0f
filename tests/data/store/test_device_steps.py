"""Normalisation and channels of a batch, against those of each image."""

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, EnsureTyped, NormalizeIntensityd, RandAdjustContrastd, RandAffined, RepeatChanneld

from cleft_bundle.data import EpochDataset, training_loader
from cleft_bundle.data.store.device_steps import without_device_steps
from cleft_bundle.engines.prepare_batch import PrepareImageText

RANDOM = (
    EnsureTyped("image", track_meta=False),
    RandAffined("image", prob=0.8, rotate_range=0.3, padding_mode="zeros"),
    RandAdjustContrastd("image", prob=0.5, gamma=[0.5, 2]),
)


def network(**normal):
    return (
        NormalizeIntensityd("image", **{"subtrahend": 0.4815, "divisor": 0.2686, **normal}),
        RepeatChanneld("image", repeats=3),
        EnsureTyped("image", track_meta=False),
    )


@pytest.fixture
def items():
    images = torch.from_numpy(np.random.default_rng(0).random((6, 1, 20, 20), dtype=np.float32))
    return [{"image": image, "name": str(n), "caption": "edema", "label": [1.0]} for n, image in enumerate(images)]


@pytest.mark.parametrize("kind", [Dataset, CacheDataset])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_on_the_device_equals_its_images_one_by_one(items, tokenize, kind, workers):
    dataset = kind(items, Compose([*RANDOM, *network()]))
    loader = training_loader(dataset, tokenize, 6, workers, seed=3)
    for epoch in range(2):
        (batch,) = loader
        assert batch["image"].shape == (6, 1, 20, 20)
        image, *_ = PrepareImageText()(batch, "cpu")
        plain = EpochDataset(kind(items, Compose([*RANDOM, *network()])), seed=3)
        expected = torch.stack([plain[epoch, int(name)]["image"] for name in batch["name"]])
        assert type(image) is torch.Tensor
        assert torch.equal(image, expected)
    assert dataset[0]["image"].shape == (3, 20, 20)  # whoever holds it gets what it promises


@pytest.mark.parametrize(
    "steps",
    [
        network(),  # nothing random: it may be kept behind them
        (*RANDOM, *network(nonzero=True)),
        (*RANDOM, *network(subtrahend=None, divisor=None)),
        (*RANDOM, *network(channel_wise=True, subtrahend=[0.5], divisor=[0.5])),
        (*RANDOM, *network()[:2]),
        (*RANDOM, *network()[1:]),
        (*RANDOM, network()[0], RepeatChanneld("label", repeats=3), network()[2]),
        (),
    ],
)
def test_other_steps_stay_where_they_are(items, steps):
    dataset = Dataset(items, Compose(list(steps)))
    assert without_device_steps(dataset) == (dataset, None)
