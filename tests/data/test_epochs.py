import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandGaussianNoised, ToTensord

from cleft_bundle.data import epochs
from cleft_bundle.data.epochs import EpochDataset, EpochSampler, balanced_weights, derive_seed


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


NAN = float("nan")
# 90 of no finding, 8 of the first, 1 of the second, 1 of both, none of the third; 20 of which nothing is known
LABELS = [[0, 0, 0]] * 90 + [[1, 0, NAN]] * 8 + [[0, 1, 0]] + [[1, 1, 0]] + [[NAN, NAN, NAN]] * 20


def test_balanced_draws_meet_each_class_alike():
    weights = balanced_weights(LABELS)
    assert sum(weights) == pytest.approx(3)  # two findings, and those without one; nobody has the third
    assert weights[0] == pytest.approx(1 / 110)
    assert weights[90] == pytest.approx(1 / 9)
    assert weights[98] == pytest.approx(1 / 2)
    assert weights[99] == pytest.approx(1 / 9 + 1 / 2)
    assert weights[-1] == weights[0]
    sampler = EpochSampler(len(LABELS), 0, weights)
    drawn = np.bincount([key[1] for _ in range(200) for key in sampler], minlength=len(LABELS)) / (200 * len(LABELS))
    np.testing.assert_allclose([drawn[:90].sum() + drawn[100:].sum(), drawn[98]], [1 / 3, 1 / 6], atol=0.01)


def test_an_epoch_of_balanced_draws_is_as_long_and_repeats_are_told_apart():
    sampler, again = (EpochSampler(120, 4, balanced_weights(LABELS)) for _ in range(2))
    first, second = list(sampler), list(sampler)
    assert len(first) == len(second) == len(sampler) == 120
    assert first != second
    assert len(set(first)) == 120, "each draw of an item is augmented anew"
    assert max(len(key) for key in first) == 3
    again.resume(1, 50)
    assert list(again) == second[50:]


def test_processes_share_what_is_drawn(monkeypatch):
    whole = list(EpochSampler(120, 0, balanced_weights(LABELS)))
    monkeypatch.setattr(epochs, "world_size", lambda: 2)
    shares = []
    for number in range(2):
        monkeypatch.setattr(epochs, "rank", lambda number=number: number)
        shares.append(list(EpochSampler(120, 0, balanced_weights(LABELS))))
    assert shares == [whole[::2], whole[1::2]]


def test_a_repeated_item_is_augmented_anew_and_the_same_again():
    data = loader().dataset
    images = [data[key]["image"] for key in ((1, 3), (1, 3, 1), (1, 3, 1), (1, 3))]
    assert torch.equal(images[0], images[3])
    assert torch.equal(images[1], images[2])
    assert not torch.equal(images[0], images[1])
