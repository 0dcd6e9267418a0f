"""Heat maps over the files of many items, and the pointing game on those that have boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from cleft_bundle.data.items import LONG
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.pointing_game import TOLERANCE, boxes_by_finding, pointing_chance, pointing_hit
from cleft_bundle.networks.heat_maps import Method, pixel_map
from cleft_bundle.transforms import OriginalPixels


def explain(
    network: nn.Module,
    items: Sequence[Mapping[str, Any]],
    transforms: OriginalPixels,
    direction: torch.Tensor,
    method: Method = "attention",
    steady: bool = True,
    batch_size: int = 16,
) -> Iterator[tuple[Mapping[str, Any], torch.Tensor]]:
    """Map what speaks for each of K directions onto the pixels of each item's file.

    Args:
        network: see :func:`cleft_bundle.networks.heat_maps.heat_map`.
        items: with ``image``, a path.
        transforms: the deterministic transforms that the network was trained with.
        direction: float tensor [K, D].
        method: as for :func:`cleft_bundle.networks.heat_maps.pixel_map`.
        steady: as there.
        batch_size: images at a time.

    Yields:
        each item with its maps, float [K, rows, columns] over the pixels of its file.
    """
    device = next(network.parameters()).device
    steps = range(0, len(items), batch_size)
    for start in tqdm(steps, desc=f"heat maps by {method}", unit="batch", disable=len(items) < LONG):
        part = items[start : start + batch_size]
        prepared = [transforms.prepare(item) for item in part]
        images = torch.stack([torch.as_tensor(item["image"]) for item, _ in prepared]).to(device)
        maps = pixel_map(network, images, direction, method, steady)
        for item, (_, trace), found in zip(part, prepared, maps, strict=True):
            yield item, transforms.restore(found, trace)


def play(
    network: nn.Module,
    items: Sequence[Mapping[str, Any]],
    transforms: OriginalPixels,
    directions: Mapping[str, torch.Tensor],
    method: Method = "attention",
    tolerances: Sequence[float] = (TOLERANCE,),
    steady: bool = True,
) -> pd.DataFrame:
    """Play the pointing game on all items that have boxes of a finding that there is a direction for.

    Args:
        network: as for :func:`explain`.
        items: those without such boxes are passed over.
        transforms: as for :func:`explain`.
        directions: the direction [D] of each finding by its name.
        method: as for :func:`explain`.
        tolerances: one or more, see :func:`cleft_bundle.metrics.pointing_game.pointing_hit`.
        steady: as for :func:`explain`.

    Returns:
        one row an image, finding and tolerance: ``name``, ``patient_id``, ``finding``, ``tolerance``, and ``hit`` and
        ``chance``, both 0..1. Images of a patient are not independent: intervals are for resampling by ``patient_id``.

    Raises:
        BundleError: where no item has such boxes.
    """
    names = list(directions)
    boxed = [item for item in items if set(boxes_by_finding(item)) & set(names)]
    if not boxed:
        raise BundleError(f"pointing game: none of {len(items)} items has a box of {', '.join(names)}")
    rows = []
    for item, maps in explain(network, boxed, transforms, torch.stack(list(directions.values())), method, steady):
        found = boxes_by_finding(item)
        for name, heat in zip(names, maps.numpy(), strict=True):
            for tolerance in tolerances if name in found else ():
                rows.append(
                    {
                        "name": item["name"],
                        "patient_id": item["patient_id"],
                        "finding": name,
                        "tolerance": tolerance,
                        "hit": pointing_hit(heat, found[name], tolerance),
                        "chance": pointing_chance(heat.shape, found[name], tolerance),
                    }
                )
    return pd.DataFrame(rows)
