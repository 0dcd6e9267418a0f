"""What an image network makes of images, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.transforms import Compose

from cleft_bundle.distributed import gather_uneven, own_share
from cleft_bundle.networks import CLEFT
from cleft_bundle.progress import bar


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
        data: Sequence[Mapping[str, Any]],
        transform: Any,
        network: CLEFT,
        device: torch.device | str,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        was_training = network.training
        network.eval()
        rows = embed_images(data, transform, network.encode_image, device, batch_size, num_workers)
        network.train(was_training)
        embedded = [{**item, "image": row} for item, row in zip(data, rows, strict=True)]
        super().__init__(embedded, Compose([]))


@torch.no_grad()
def embed_images(
    data: Sequence[Mapping[str, Any]],
    transform: Any,
    encode: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device | str,
    batch_size: int = 32,
    num_workers: int = 0,
) -> torch.Tensor:
    """Read the images of N items, each once, and put them through a network.

    Args:
        data: items of a ``datalist``.
        transform: from an item to ``image`` [3, H, W].
        encode: from images [B, 3, H, W] to rows [B, D]; its network is in evaluation mode.
        device: where the network is.
        batch_size: images at a time.
        num_workers: processes that read images.

    Returns:
        float32 rows [N, D] on the CPU, in the order of the items.
    """
    # only the image goes through the loader: what else an item has need not collate
    pictures = Dataset([{"image": item["image"]} for item in data], transform)
    loader = DataLoader(pictures, batch_size=batch_size, num_workers=num_workers, collate_fn=list_data_collate)
    batches = bar(loader, "embedding images", "batch", leave=False)
    return torch.cat([encode(batch["image"].to(device)).float().cpu() for batch in batches])


def embed_together(
    data: Sequence[Mapping[str, Any]],
    transform: Any,
    encode: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device | str,
    batch_size: int = 32,
    num_workers: int = 0,
) -> torch.Tensor:
    """Divide :func:`embed_images` among the processes.

    Returns:
        float32 rows [N, D] in the order of the items, in every process.
    """
    rows = gather_uneven(embed_images(own_share(data), transform, encode, device, batch_size, num_workers))
    numbers = gather_uneven(torch.tensor(own_share(range(len(data)))))
    return rows[numbers.argsort()]
