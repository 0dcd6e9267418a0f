"""The contrastive loss of language-image pre-training."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.errors import BundleError

Positives = Literal["caption", "index"]


class ContrastiveLoss(nn.Module):
    """Cross-entropy from image to text plus from text to image over the batch, their sum as in CLEFT.

    With ``positives="index"`` only an image's own caption is its positive (CLIP, and CLEFT's release). With
    ``positives="caption"`` every pair with an equal caption is, each with an equal share of the target: label tables
    give the same caption to many images, and ``index`` would push those apart.

    Args:
        positives: ``caption`` or ``index``.

    Raises:
        BundleError: where ``positives`` is neither.

    Source: Radford et al., "CLIP", ICML 2021 (``index``); Yang et al., "Unified Contrastive Learning in
    Image-Text-Label Space", CVPR 2022, equation 1 (``caption``).
    """

    def __init__(self, positives: Positives = "caption") -> None:
        super().__init__()
        if positives not in get_args(Positives):
            raise BundleError(f"positives: expected one of {', '.join(get_args(Positives))}, got {positives!r}")
        self.positives = positives

    def forward(
        self, embeddings: tuple[torch.Tensor, torch.Tensor, torch.Tensor], caption_id: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of one batch.

        Args:
            embeddings: image embeddings [B, D], text embeddings [B, D] (unit vectors) and the logit scale.
            caption_id: int64 tensor [B], equal where the captions are equal.

        Returns:
            the loss, a scalar tensor.

        Raises:
            BundleError: where the batch has one image, for which there is nothing to contrast.
        """
        image, text, scale = embeddings
        if len(image) < 2:
            raise BundleError("batch_size: a contrastive loss needs at least two images a batch, got one")
        logits = scale * image @ text.T
        if self.positives == "index":
            target = torch.eye(len(image), device=logits.device, dtype=logits.dtype)
        else:
            same = (caption_id[:, None] == caption_id[None, :]).to(logits.dtype)
            target = same / same.sum(dim=1, keepdim=True)
        return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
