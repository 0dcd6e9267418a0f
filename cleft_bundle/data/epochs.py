"""Order and augmentation of training items as a function of seed and epoch alone.

A run that is interrupted can go on in the middle of an epoch with the very batches that it would have seen, and the
number of loader workers changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from cleft_bundle.distributed import rank, world_size

Key = tuple[int, int]


def derive_seed(*parts: int | str) -> int:
    """A seed of 32 bits that depends on all parts, the same on every machine."""
    text = ":".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


class EpochSampler(Sampler[Key]):
    """Give (epoch, index) of every item in an order that depends on seed and epoch; each iteration is the next epoch.

    Under ``torch.distributed`` every process gets an equal share of the order, from which the last items are left out
    where they do not divide.

    Args:
        size: number of items.
        seed: first half of what decides on the order.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
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
        order = torch.randperm(self.size, generator=generator).tolist()
        share = order[rank() :: world_size()][: len(self)]
        yield from ((epoch, index) for index in share[start:])


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
        epoch, index = key
        self.dataset.transform.set_random_state(seed=derive_seed(self.seed, "item", epoch, index))
        return self.dataset[index]
