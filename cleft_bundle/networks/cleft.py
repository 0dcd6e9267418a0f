"""CLEFT: an image tower and a text tower that meet in one space."""

from __future__ import annotations

import math

import torch
from torch import nn

from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.text_encoder import TextEncoder


class CLEFT(nn.Module):
    """The dual encoder that contrastive pre-training trains.

    Args:
        image_encoder: the image tower.
        text_encoder: the text tower, of the same embedding width.
        temperature: initial temperature; the logit scale starts at ``ln(1 / temperature)``.
        max_logit_scale: bound on the learnt scale (CLIP's 100). None leaves it free, as CLEFT's release does.

    Raises:
        ValueError: where the towers differ in embedding width.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024; Radford et al., "CLIP", ICML 2021.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        temperature: float = 0.07,
        max_logit_scale: float | None = 100.0,
    ) -> None:
        super().__init__()
        widths = image_encoder.projection.out_features, text_encoder.projection.out_features
        if widths[0] != widths[1]:
            raise ValueError(f"the towers meet in one space, but their embeddings are {widths[0]} and {widths[1]} wide")
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self.max_logit_scale = max_logit_scale

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities: ``exp(logit_scale)``, clamped to ``max_logit_scale``. A scalar tensor."""
        scale = self.logit_scale.exp()
        return scale if self.max_logit_scale is None else scale.clamp(max=self.max_logit_scale)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W] as unit vectors [B, D]."""
        return self.image_encoder(image)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed captions [N, T] as unit vectors [N, D]; see :class:`TextEncoder` on the mask."""
        return self.text_encoder(input_ids, attention_mask)

    def forward(
        self,
        image: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        caption_index: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embed images and their captions.

        Args:
            image: float tensor [B, 3, H, W].
            input_ids: int64 tensor [N, T], the distinct captions of the batch.
            attention_mask: int64 tensor [N, T].
            caption_index: int64 tensor [B], which of the N captions belongs to each image. None where every image
                has its own, N = B.

        Returns:
            image embeddings [B, D], text embeddings [B, D], and the clamped logit scale.
        """
        text = self.encode_text(input_ids, attention_mask)
        if caption_index is not None:
            text = text[caption_index]
        return self.encode_image(image), text, self.scale
