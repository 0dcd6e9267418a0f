"""Order and augmentation of training items as a function of seed and epoch alone.

A run that is interrupted can go on in the middle of an epoch with the very batches that it would have seen, and the
number of loader workers changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch.utils.data import Dataset, Sampler, WeightedRandomSampler

from cleft_bundle.distributed import rank, world_size

Key = tuple[int, ...]
Sampling = Literal["natural", "balanced"]


def derive_seed(*parts: int | str) -> int:
    """A seed of 32 bits that depends on all parts, the same on every machine."""
    text = ":".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def balanced_weights(labels: Sequence[Sequence[float]]) -> list[float]:
    """Weights by which items are drawn so that each class is met as often as any other.

    A draw is that of a class, all of which are as likely, and then of one of its positive items. Items without a known
    positive, such as those of no finding where that is no class, are a class of their own; a class without a positive
    item is none. An item with several findings is drawn for each of them.

    Args:
        labels: [N, K] of 1, 0 and NaN (unknown).

    Returns:
        N weights, none of them 0, whose sum is the number of classes.
    """
    positive = torch.as_tensor(labels, dtype=torch.float64).reshape(len(labels), -1) == 1
    groups = torch.cat([positive, ~positive.any(dim=1, keepdim=True)], dim=1).double()
    return (groups / groups.sum(dim=0).clamp(min=1)).sum(dim=1).tolist()


class EpochSampler(Sampler[Key]):
    """Give (epoch, index) of items in an order that depends on seed and epoch; each iteration is the next epoch.

    Without weights every item comes once an epoch. With them an epoch is as long, of items drawn with replacement:
    what comes for the n-th time in an epoch has the key (epoch, index, n - 1), n above 1, so that it is augmented anew.
    Under ``torch.distributed`` every process gets an equal share of the order, from which the last items are left out
    where they do not divide.

    Args:
        size: number of items.
        seed: first half of what decides on the order.
        weights: of all items, in what proportion each is drawn. None: each comes once.
    """

    def __init__(self, size: int, seed: int = 0, weights: Sequence[float] | None = None) -> None:
        self.size = size
        self.seed = seed
        self.weights = weights
        self.epoch = 0
        self.start = 0

    def resume(self, epoch: int, start: int) -> None:
        """Go on in ``epoch`` (from 0), whose first ``start`` items of this process have been seen already."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.size // world_size()

    def __iter__(self) -> Iterator[Key]:
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        share = self._order(epoch, generator)[rank() :: world_size()][: len(self)]
        yield from share[start:]

    def _order(self, epoch: int, generator: torch.Generator) -> list[Key]:
        """Keys of an epoch for all processes."""
        if self.weights is None:
            return [(epoch, index) for index in torch.randperm(self.size, generator=generator).tolist()]
        drawn, times = WeightedRandomSampler(self.weights, self.size, generator=generator), Counter[int]()
        keys: list[Key] = []
        for index in drawn:
            keys.append((epoch, index, times[index]) if times[index] else (epoch, index))
            times[index] += 1
        return keys


class EpochDataset(Dataset):
    """A MONAI dataset whose random transforms are seeded for each item of each epoch.

    Args:
        dataset: a MONAI dataset with ``transform``.
        seed: first part of what decides on the augmentation.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        """Transform one item; ``key`` is of :class:`EpochSampler`."""
        self.dataset.transform.set_random_state(seed=derive_seed(self.seed, "item", *key))
        return self.dataset[key[1]]
