"""Features of images, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.transforms import Compose

from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import PICTURE, keeping_pictures
from cleft_bundle.distributed import gather_lists, gather_uneven, own_share
from cleft_bundle.networks import CLEFT
from cleft_bundle.progress import bar


class EmbeddedDataset(Dataset):
    """A datalist whose images were embedded once, so that training behind a frozen image tower costs no vision.

    Its items are those of the datalist, with the embedding [D], on the CPU, in the place of ``image``, and with the
    digest of their picture (:func:`cleft_bundle.data.known_pictures`).

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
        data: Sequence[Item],
        transform: Any,
        network: CLEFT,
        device: torch.device | str,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        was_training = network.training
        network.eval()
        rows, pictured = embed_pictured(data, transform, network.encode_image, device, batch_size, num_workers)
        network.train(was_training)
        embedded = [{**item, "image": row} for item, row in zip(pictured, rows, strict=True)]
        super().__init__(embedded, Compose([]))


def embed_images(
    data: Sequence[Item],
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
    return embed_pictured(data, transform, encode, device, batch_size, num_workers)[0]


@torch.no_grad()
def embed_pictured(
    data: Sequence[Item],
    transform: Any,
    encode: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device | str,
    batch_size: int = 32,
    num_workers: int = 0,
) -> tuple[torch.Tensor, list[Item]]:
    """Like :func:`embed_images`, and keep the digests of the pictures that were read.

    Returns:
        the rows [N, D]; and the items with the digest of their picture, where the transforms read a file.
    """
    # only the image goes through the loader: what else an item has need not collate
    pictures = Dataset([{"image": item["image"]} for item in data], keeping_pictures(transform))
    loader = DataLoader(pictures, batch_size=batch_size, num_workers=num_workers, collate_fn=list_data_collate)
    rows, digests = list[torch.Tensor](), list[str]()
    for batch in bar(loader, "embedding images", "batch", leave=False):
        rows.append(encode(batch["image"].to(device)).float().cpu())
        digests += batch.get(PICTURE, [])
    if not digests:
        return torch.cat(rows), list(data)
    return torch.cat(rows), [{**item, PICTURE: digest} for item, digest in zip(data, digests, strict=True)]


def embed_together(
    data: Sequence[Item],
    transform: Any,
    encode: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device | str,
    batch_size: int = 32,
    num_workers: int = 0,
) -> tuple[torch.Tensor, list[Item]]:
    """Divide :func:`embed_pictured` among the processes.

    Returns:
        float32 rows [N, D] and the items with the digests of their pictures, in the order of the items, in every
        process.
    """
    own, pictured = embed_pictured(own_share(data), transform, encode, device, batch_size, num_workers)
    rows, digests = gather_uneven(own), gather_lists([item.get(PICTURE) for item in pictured])
    order = gather_uneven(torch.tensor(own_share(range(len(data))))).argsort()
    known = [digests[place] for place in order.tolist()]
    items: list[Item] = [item if one is None else {**item, PICTURE: one} for item, one in zip(data, known, strict=True)]
    return rows[order], items
