"""Carry maps of a transformed image back onto the pixels of the file it was read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from monai.transforms.utils import convert_applied_interp_mode
from monai.utils import TraceKeys

from cleft_bundle.errors import BundleError


class OriginalPixels:
    """Transforms that remember for each image how to undo them.

    MONAI writes into a MetaTensor what was done to it, but the last transforms before a network commonly drop that
    (``track_meta: false``). This takes it down before they do.

    Args:
        transforms: the deterministic transforms of an item, from the reader on, such as
            :func:`cleft_bundle.transforms.build_transforms` gives. Crops, pads, flips and resizes are undone;
            transforms of values stay out of it.
        key: of the image in an item.
    """

    def __init__(self, transforms: Compose | Sequence[Transform], key: str = "image") -> None:
        # a flat copy, so that each step can be watched and the same objects undo what they did
        self.transforms = Compose(list(Compose(transforms).flatten().transforms))
        self.key = key

    def prepare(self, item: Mapping[str, Any]) -> tuple[dict[str, Any], MetaTensor]:
        """Transform an item.

        Args:
            item: as the first transform wants it, a path for example.

        Returns:
            the transformed item, and its image as it was when its metadata was last known: what :meth:`restore` needs.

        Raises:
            BundleError: where the image never was a MetaTensor, or is moved after its metadata was dropped.
        """
        out: Any = dict(item)
        trace: MetaTensor | None = None
        dropped = False
        for step in self.transforms.transforms:
            out = step(out)
            tracked = isinstance(out[self.key], MetaTensor)
            dropped = dropped or (trace is not None and not tracked)
            if tracked and not dropped:
                trace = out[self.key]
            elif tracked and out[self.key].applied_operations:
                raise BundleError(
                    f"original pixels: {type(step).__name__} moves pixels after their metadata was dropped; "
                    "put track_meta: false behind it"
                )
        if trace is None:
            raise BundleError("original pixels: the transforms give plain tensors from the start; read with LoadImaged")
        return out, trace

    def restore(self, maps: torch.Tensor, trace: MetaTensor) -> torch.Tensor:
        """Undo the transforms on maps.

        Resizing is undone bilinearly, whatever the image was resized by. What the image was cropped of gets the lowest
        value of each map, so that no maximum moves there.

        Args:
            maps: float [K, H, W], of the size that the transforms gave the image.
            trace: what :meth:`prepare` gave for this image.

        Returns:
            float [K, rows, columns], over the pixels of the file as the reader gives them.

        Raises:
            BundleError: where the maps have another size than the transformed image.
        """
        if maps.ndim != 3 or maps.shape[-2:] != trace.shape[-2:]:
            raise BundleError(
                f"maps: expected [K, {trace.shape[-2]}, {trace.shape[-1]}] like the image, got {tuple(maps.shape)}"
            )
        maps = maps.detach().to("cpu", torch.float32)
        lowest = maps.amin(dim=(1, 2), keepdim=True)  # MONAI's inverse of a crop pads with 0
        operations = convert_applied_interp_mode(trace.applied_operations, mode="bilinear", align_corners=False)
        for operation in operations:
            operation[TraceKeys.ID] = TraceKeys.NONE  # a cache or a worker may have transformed the image elsewhere
        carrier = MetaTensor(maps - lowest, meta=dict(trace.meta), applied_operations=operations)
        restored = self.transforms.inverse({self.key: carrier})[self.key]
        return restored.as_tensor() + lowest
