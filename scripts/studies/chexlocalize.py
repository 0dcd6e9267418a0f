"""CheXlocalize: masks that radiologists drew of findings in CheXpert's validation and test images.

Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence 2022,
https://doi.org/10.1038/s42256-022-00536-x. ``gt_segmentations_val.json`` and ``gt_segmentations_test.json`` hold, by
image (``patient64541_study1_view1_frontal``) and finding, a mask in COCO's run lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cleft_bundle.data.images.run_lengths import coco_mask
from cleft_bundle.errors import BundleError
from cleft_bundle.files import read_object
from cleft_bundle.names import plain_name

_SPELLINGS = {"airspace opacity": "lung opacity"}  # CheXpert's name of the same finding


def add_masks(items: Sequence[Mapping[str, Any]], path: str | Path) -> list[dict[str, Any]]:
    """Keep the items that have masks, with these in ``masks``.

    Args:
        items: as :func:`cleft_bundle.data.datasets.chexpert.datalist` lists them.
        path: a file of masks.

    Returns:
        copies of the items that a mask marks something in, with ``masks``: from findings in lower case to bool
        [rows, columns] of the published image.

    Raises:
        BundleError: the file is no such file, or none of its images is among the items.
    """
    published = read_object(path)
    found = []
    for item in items:
        key = "_".join(PurePosixPath(item["name"]).with_suffix("").parts[1:])
        entries = published.get(key, {})
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise BundleError(f"{path}: expected masks by finding for {key}")
        masks = {}
        for name, entry in entries.items():
            mask = coco_mask(entry)
            if mask.any():
                plain = plain_name(name)
                masks[_SPELLINGS.get(plain, plain)] = mask
        if masks:
            found.append({**item, "masks": masks})
    if not found:
        raise BundleError(f"{path}: none of its {len(published)} images with a mask is among the {len(items)} items")
    return found


def fitted(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask [H, W] at another size [h, w] of the same picture, such as CheXpert's small release, by nearest pixels.

    Raises:
        BundleError: the sides have another ratio, by more than one pixel of the smaller picture.
    """
    if mask.shape == tuple(shape):
        return mask
    scale = mask.shape[0] / shape[0]
    if abs(mask.shape[1] / scale - shape[1]) > 1:
        raise BundleError(f"a mask of {mask.shape} pixels does not fit a picture of {tuple(shape)}")
    rows, columns = ((np.arange(n) + 0.5) * full / n for n, full in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows.astype(int), columns.astype(int))]
