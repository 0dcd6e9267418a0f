"""Loaders of batches of images with captions, as the configs of training and evaluation take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import torch
from monai.data import DataLoader, Dataset

from cleft_bundle.data.collate import CaptionCollate
from cleft_bundle.data.epochs import EpochDataset, EpochSampler, Sampling, balanced_weights
from cleft_bundle.data.item import Item
from cleft_bundle.data.store.choice import cached_dataset
from cleft_bundle.data.store.device_steps import without_device_steps
from cleft_bundle.data.token_checks import Tokenize
from cleft_bundle.distributed import own_share
from cleft_bundle.errors import require_one_of

_PREFETCHED = 4  # batches of a worker that wait: some images take longer than others


def training_loader(
    dataset: Dataset,
    tokenize: Tokenize,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    drop_last: bool = True,
    captioned: bool = True,
    sampling: Sampling = "natural",
) -> DataLoader:
    """Batches whose order and augmentation depend on seed and epoch alone, see :mod:`cleft_bundle.data.epochs`.

    Normalisation and the repetition of a grey channel are left to
    :class:`cleft_bundle.engines.prepare_batch.PrepareImageText`, which does them for the whole batch where the network
    is (:func:`cleft_bundle.data.store.device_steps.without_device_steps`).

    Args:
        dataset: the items of the training, with ``data`` and ``transform``.
        tokenize: the tokenizer of their captions.
        batch_size: images per batch and process.
        num_workers: processes that read images; 0 reads in this one.
        seed: of order and augmentation.
        drop_last: leave out the last batch of an epoch where it is smaller.
        captioned: the captions are trained on: the log says how many of them are cut.
        sampling: ``natural``: each item once an epoch; ``balanced``: as many draws as there are items, by
            :func:`cleft_bundle.data.epochs.balanced_weights`.

    Raises:
        BundleError: where ``sampling`` is neither.
    """
    require_one_of("sampling", sampling, get_args(Sampling))
    weights = balanced_weights([item["label"] for item in dataset.data]) if sampling == "balanced" else None
    reduced, on_device = without_device_steps(dataset)
    return DataLoader(
        EpochDataset(reduced, seed),
        sampler=EpochSampler(len(dataset), seed, weights),
        batch_size=batch_size,
        drop_last=drop_last,
        collate_fn=CaptionCollate(tokenize, dataset.data if captioned else (), on_device),
        **_reading(num_workers, persistent=True),
    )


def validation_loader(
    dataset: Dataset,
    tokenize: Tokenize,
    batch_size: int,
    num_workers: int = 0,
    items: Iterable[Item] = (),
) -> DataLoader:
    """Batches in the order of a dataset.

    Args:
        dataset: the items of this process.
        tokenize: the tokenizer of their captions.
        batch_size: images per batch.
        num_workers: processes that read images; 0 reads in this one.
        items: those of all processes whose captions are measured: the log says how many of them are cut.
    """
    return DataLoader(
        dataset, batch_size=batch_size, collate_fn=CaptionCollate(tokenize, items), **_reading(num_workers)
    )


def _reading(num_workers: int, persistent: bool = False) -> dict[str, Any]:
    """Arguments of a DataLoader: workers and how they read, and memory from which a GPU copies while it computes."""
    workers = {"persistent_workers": persistent, "prefetch_factor": _PREFETCHED} if num_workers else {}
    return {"num_workers": num_workers, "pin_memory": torch.cuda.is_available(), **workers}


def calibration_loader(
    items: Sequence[Item],
    transform: Any,
    tokenize: Tokenize,
    batch_size: int,
    cache_dir: str | None = None,
    cache: str | None = None,
) -> DataLoader | None:
    """Batches of this process's share of items, each of which is read once.

    Args:
        items: those of all processes.
        transform: from an item to ``image`` [3, H, W].
        tokenize: the tokenizer of their captions.
        batch_size: images per batch.
        cache_dir: as of :func:`cleft_bundle.data.cached_dataset`; nothing is kept in memory.
        cache: likewise.

    Returns:
        None without items.
    """
    if not items:
        return None
    dataset = cached_dataset(own_share(items), transform, cache_dir, cache_rate=0.0, cache=cache)
    return validation_loader(dataset, tokenize, batch_size)
