"""Heat maps over the files of many items, and the pointing game on those that have boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from cleft_bundle.errors import BundleError
from cleft_bundle.progress import LONG
from cleft_bundle.transforms import OriginalPixels
from studies.pointing_game import TOLERANCE, boxes_by_finding, marks_by_finding, pointing_chance, pointing_hit

Mapper = Callable[[torch.Tensor], torch.Tensor]


def explain(
    items: Sequence[Mapping[str, Any]], transforms: OriginalPixels, mapper: Mapper, batch_size: int = 16
) -> Iterator[tuple[Mapping[str, Any], torch.Tensor]]:
    """Make maps over the pixels of each item's file.

    Args:
        items: with ``image``, a path.
        transforms: the deterministic transforms that the network was trained with.
        mapper: from images [B, 3, H, W] on the CPU to maps [B, K, H, W], such as
            :func:`cleft_bundle.networks.heat_maps.class_maps` and ``pixel_map`` make.
        batch_size: images at a time.

    Yields:
        each item with its maps, float [K, rows, columns] over the pixels of its file.
    """
    steps = range(0, len(items), batch_size)
    for start in tqdm(steps, desc="heat maps", unit="batch", disable=len(items) < LONG):
        part = items[start : start + batch_size]
        prepared = [transforms.prepare(item) for item in part]
        maps = mapper(torch.stack([torch.as_tensor(item["image"]) for item, _ in prepared]))
        for item, (_, trace), found in zip(part, prepared, maps, strict=True):
            yield item, transforms.restore(found, trace)


def play(
    items: Sequence[Mapping[str, Any]],
    transforms: OriginalPixels,
    mapper: Mapper,
    findings: Sequence[str],
    tolerances: Sequence[float] = (TOLERANCE,),
) -> pd.DataFrame:
    """Play the pointing game on all items that have boxes or masks of a finding that there is a map of.

    Args:
        items: those without such boxes or ``masks`` are passed over.
        transforms: as for :func:`explain`.
        mapper: as for :func:`explain`.
        findings: what each of the K maps is of.
        tolerances: one or more, see :func:`studies.pointing_game.pointing_hit`.

    Returns:
        one row per image, finding and tolerance: ``name``, ``patient_id``, ``finding``, ``tolerance``, and ``hit`` and
        ``chance``, both 0..1. Images of a patient are not independent: intervals are for resampling by ``patient_id``.

    Raises:
        BundleError: where no item has such boxes or masks.
    """
    boxed = [item for item in items if {*boxes_by_finding(item), *item.get("masks", ())} & set(findings)]
    if not boxed:
        raise BundleError(f"pointing game: none of {len(items)} items has a box of {', '.join(findings)}, or a mask")
    rows = []
    for item, maps in explain(boxed, transforms, mapper):
        found = marks_by_finding(item, tuple(maps.shape[1:]))
        for name, heat in zip(findings, maps.numpy(), strict=True):
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
