"""The image tower of CLEFT: a vision transformer, a pooling of its tokens, and a projection into the shared space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import describe_source, freeze, load_backbone

Pooling = Literal["tokens_prenorm", "cls", "mean_patches"]


class ImageEncoder(nn.Module):
    """A Hugging Face vision transformer that maps an image to a unit vector of the shared space.

    Args:
        backbone: hub id, local folder, or config values with ``model_type`` for random weights.
        embedding_dim: width D of the shared space.
        pooling: how the tokens of the last block become one vector.
            ``tokens_prenorm`` is CLEFT's: the mean over all tokens, class and register tokens included, before the
            final layer norm. ``cls`` is the class token and ``mean_patches`` the mean over the patch tokens, both
            after the norm.
        trainable: False freezes the backbone; the projection is always trained.
        seed: seed of random weights where the backbone is a config.

    Raises:
        BundleError: where the backbone cannot be loaded or does not offer the pooling.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024, https://doi.org/10.1007/978-3-031-72390-2_44; Darcet et al.,
    "Vision Transformers Need Registers", ICLR 2024.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        embedding_dim: int = 512,
        pooling: Pooling = "tokens_prenorm",
        trainable: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise BundleError(f"pooling: expected one of {', '.join(get_args(Pooling))}, got {pooling!r}")
        self.backbone: Any = load_backbone(backbone, "image_backbone", seed=seed)
        if pooling == "tokens_prenorm" and not (
            hasattr(self.backbone, "embeddings") and hasattr(self.backbone, "encoder")
        ):
            name = type(self.backbone).__name__
            raise BundleError(f"pooling: tokens_prenorm needs a DINOv2-like model, {name} offers cls and mean_patches")
        if not trainable:
            freeze(self.backbone)
        self.source = describe_source(backbone)
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        config = self.backbone.config
        self._prefix_tokens = 1 + getattr(config, "num_register_tokens", 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = nn.Linear(config.hidden_size, embedding_dim)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels; image sides are multiples of it."""
        return int(self.backbone.config.patch_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Args:
            image: float tensor [B, 3, H, W], normalised with the backbone's statistics.

        Returns:
            L2-normalised embeddings [B, D].
        """
        # a MetaTensor would carry its metadata through every layer, which costs time and is of no use here
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        return F.normalize(self.projection(self._pool(image)), dim=-1)

    def _pool(self, image: torch.Tensor) -> torch.Tensor:
        if self.pooling == "tokens_prenorm":
            tokens = self.backbone.encoder(self.backbone.embeddings(image)).last_hidden_state
            return tokens.mean(dim=1)
        tokens = self.backbone(pixel_values=image).last_hidden_state
        return tokens[:, 0] if self.pooling == "cls" else tokens[:, self._prefix_tokens :].mean(dim=1)
