import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandGaussianNoised, ToTensord

from cleft_bundle.data.epochs import EpochDataset, EpochSampler, derive_seed


def loader(workers=0, seed=0):
    items = [{"image": np.full((1, 2, 2), number, dtype=np.float32)} for number in range(10)]
    transform = Compose([ToTensord("image", track_meta=False), RandGaussianNoised("image", prob=1.0)])
    dataset = CacheDataset(items, transform, progress=False)
    return DataLoader(
        EpochDataset(dataset, seed), sampler=EpochSampler(10, seed), batch_size=3, drop_last=True, num_workers=workers
    )


def batches(data, epochs=2):
    return [batch["image"] for _ in range(epochs) for batch in data]


def test_the_number_of_workers_changes_nothing():
    alone, helped = batches(loader()), batches(loader(workers=2))
    assert len(alone) == len(helped) == 6
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_epochs_and_seeds_differ():
    first, second = batches(loader())[:3], batches(loader())[3:]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(batches(loader(seed=1))[0], first[0])


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupted_epoch_goes_on_where_it_stopped(done):
    whole = batches(loader())
    resumed = loader()
    resumed.sampler.resume(1, done * 3)
    assert all(torch.equal(a, b) for a, b in zip(whole[3 + done :], batches(resumed, 1), strict=True))


def test_every_item_comes_once_an_epoch():
    sampler = EpochSampler(7)
    assert sorted(index for _, index in sampler) == list(range(7))
    assert {epoch for epoch, _ in sampler} == {1}


def test_a_seed_depends_on_every_part():
    seeds = {derive_seed(0, "item", 1, 23), derive_seed(0, "item", 12, 3), derive_seed(1, "item", 1, 23)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)
