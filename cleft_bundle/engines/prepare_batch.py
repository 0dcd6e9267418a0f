"""Batches as MONAI's engines hand them to the network and to the loss."""

from __future__ import annotations

from typing import Any, Literal

import torch
from monai.engines import PrepareBatch


class PrepareImageText(PrepareBatch):
    """Prepare a batch of :class:`cleft_bundle.data.CaptionCollate` for CLEFT.

    MONAI's default would turn a missing label into None without a word; here a missing key is a ``KeyError``.

    Args:
        target: key of the batch that becomes the target: ``caption_id`` for the contrastive loss, ``label`` for
            zero-shot evaluation and for a classifier of images.
        text: hand on the captions; without, the network takes the image alone.
    """

    def __init__(self, target: Literal["caption_id", "label"] = "caption_id", text: bool = True) -> None:
        self.target = target
        self.text_keys = ("input_ids", "attention_mask", "caption_index") if text else ()

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, torch.Tensor]]:
        """Move a batch to the device, but for its tokens, which the text tower lays out before it moves them.

        What is left to be done with its images is done there.

        Returns:
            image [B, 3, H, W], target [B, ...], no positional and the text's keyword arguments of the network, if any.
        """
        text = {key: batchdata[key] for key in self.text_keys}
        if text:
            text["caption_index"] = text["caption_index"].to(device, non_blocking=non_blocking)
        image = batchdata["image"].to(device, non_blocking=non_blocking, **kwargs)
        if "on_device" in batchdata:
            image = batchdata["on_device"](image)
        return image, batchdata[self.target].to(device, non_blocking=non_blocking), (), text
