"""Features of a frozen image tower, computed once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.transforms import Compose
from tqdm import tqdm

from cleft_bundle.networks import CLEFT


class EmbeddedDataset(Dataset):
    """A datalist whose images were embedded once, so that training behind a frozen image tower costs no vision.

    Its items are those of the datalist, with the embedding [D], on the CPU, in the place of ``image``.

    Args:
        data: items of a ``datalist``.
        transform: from an item to ``image`` [3, H, W]; deterministic, because it is applied once.
        network: the dual encoder, whose image tower stays as it is from now on.
        device: where the network is.
        batch_size: images at a time.
        num_workers: processes that read images.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Any,
        network: CLEFT,
        device: torch.device | str,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        # only the image goes through the loader: what else an item has need not collate
        pictures = Dataset([{"image": item["image"]} for item in data], transform)
        loader = DataLoader(pictures, batch_size=batch_size, num_workers=num_workers, collate_fn=list_data_collate)
        rows = _embed(network, loader, device)
        embedded = [{**item, "image": row} for item, row in zip(data, rows, strict=True)]
        super().__init__(embedded, Compose([]))


@torch.no_grad()
def _embed(network: CLEFT, loader: DataLoader, device: torch.device | str) -> torch.Tensor:
    """Embeddings [N, D] of a loader's images, on the CPU."""
    was_training = network.training
    network.eval()
    interval = 0.2 if sys.stderr.isatty() else 30.0
    embedded = [
        network.encode_image(batch["image"].to(device)).float().cpu()
        for batch in tqdm(loader, desc="embedding images", unit="batch", mininterval=interval, leave=False)
    ]
    network.train(was_training)
    return torch.cat(embedded)
