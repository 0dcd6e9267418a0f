"""The image tower of CLEFT: a vision transformer, a pooling of its tokens, and a projection into the shared space."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.backbones import describe_source, fingerprint, load_backbone, value_fingerprint
from cleft_bundle.networks.projection import Projection, build_projection
from cleft_bundle.networks.protocol import Network
from cleft_bundle.networks.weight_names import save_by_own_names

Pooling = Literal["tokens_prenorm", "cls", "mean_patches"]


class ImageEncoder(Network):
    """A Hugging Face vision transformer that maps an image to a unit vector of the shared space.

    Args:
        backbone: hub id, local folder, or config values with ``model_type`` for random weights. Image sides need not
            be those it was pre-trained on: its position embeddings are interpolated. It is kept in float32, whatever
            it is stored in.
        embedding_dim: width D of the shared space.
        pooling: how the tokens of the last block become one vector.
            ``tokens_prenorm`` is CLEFT's: the mean over all tokens, class and register tokens included, before the
            final layer norm. ``cls`` is the class token and ``mean_patches`` the mean over the patch tokens, both
            after the norm.
        projection: ``linear``, ``mlp`` or the width of an ``mlp``, see
            :func:`cleft_bundle.networks.projection.build_projection`.
        trainable: False freezes the backbone; the projection is always trained.
        frozen_blocks: freeze the embeddings and this many of the first blocks.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        seed: seed of random weights: of the projection, and of the backbone where it is a config.

    Raises:
        BundleError: where the backbone cannot be loaded, does not offer the pooling or has fewer blocks.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024, https://doi.org/10.1007/978-3-031-72390-2_44; Darcet et al.,
    "Vision Transformers Need Registers", ICLR 2024.

    Examples:
        >>> config = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...           "image_size": 28, "patch_size": 14}
        >>> encoder = ImageEncoder(config, embedding_dim=8)
        >>> embedding = encoder(torch.zeros(2, 3, 28, 28))
        >>> embedding.shape, round(float(embedding[0].norm()), 4)
        (torch.Size([2, 8]), 1.0)
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        embedding_dim: int = 512,
        pooling: Pooling = "tokens_prenorm",
        projection: Projection = "linear",
        trainable: bool = True,
        frozen_blocks: int = 0,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_one_of("pooling", pooling, get_args(Pooling))
        self.backbone: Any = load_backbone(backbone, "image_backbone", seed=seed)
        if pooling == "tokens_prenorm" and not (
            hasattr(self.backbone, "embeddings") and hasattr(self.backbone, "encoder")
        ):
            name = type(self.backbone).__name__
            raise BundleError(f"pooling: tokens_prenorm needs a DINOv2-like model, {name} offers cls and mean_patches")
        save_by_own_names(self.backbone)
        self.source = describe_source(backbone)
        self.pretrained = not isinstance(backbone, Mapping)
        self.pooling = pooling
        self.projection_kind = projection
        self.embedding_dim = embedding_dim
        config = self.backbone.config
        self.prefix_tokens = 1 + getattr(config, "num_register_tokens", 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = build_projection(projection, self.width, embedding_dim)
        self._freeze(trainable, frozen_blocks)
        frozen = [(name, p) for name, p in self.backbone.named_parameters() if not p.requires_grad]
        self.fingerprint = fingerprint(frozen) if frozen else None
        self.former_fingerprint = value_fingerprint(frozen) if frozen else None  # what 0.6.0 wrote into checkpoints
        if gradient_checkpointing:
            self.backbone.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels; image sides are multiples of it."""
        return int(self.backbone.config.patch_size)

    @property
    def width(self) -> int:
        """Width of the pooled features."""
        return int(self.backbone.config.hidden_size)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments, as JSON-able values, that build this tower again with random weights."""
        config = self.backbone.config
        return {
            "backbone": config.to_diff_dict() | {"model_type": config.model_type},
            "embedding_dim": self.embedding_dim,
            "pooling": self.pooling,
            "projection": self.projection_kind,
        }

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks of the backbone, from the first to the last."""
        lists = [module for module in self.backbone.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Args:
            image: float tensor [B, 3, H, W], normalised with the backbone's statistics.

        Returns:
            L2-normalised embeddings [B, D].
        """
        return F.normalize(self.projection(self.features(image)), dim=-1)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """:meth:`forward`."""
        return self(image)

    @property
    def tower(self) -> ImageEncoder | None:
        """This one."""
        return self

    def merged(self) -> ImageEncoder:
        """This tower without adapters beside its weights: it has none."""
        return self

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Pool the backbone's tokens, before the projection: what a linear probe or a head of its own classifies.

        Args:
            image: float tensor [B, 3, H, W], normalised with the backbone's statistics.

        Returns:
            features [B, :attr:`width`].
        """
        # a MetaTensor would carry its metadata through every layer, which costs time and is of no use here
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        if self.pooling == "tokens_prenorm":
            embed = self.backbone.embeddings
            tokens = self.backbone.encoder(embed(image, **_interpolation(embed.forward))).last_hidden_state
            return tokens.mean(dim=1)
        tokens = self.backbone(pixel_values=image, **_interpolation(self.backbone.forward)).last_hidden_state
        return tokens[:, 0] if self.pooling == "cls" else tokens[:, self.prefix_tokens :].mean(dim=1)

    def depths(self) -> dict[str, int]:
        """Depth of every parameter of the backbone by its name: 0 before the blocks, 1 to L in them, L + 1 after."""
        block_of = {id(p): number for number, block in enumerate(self.blocks, start=1) for p in block.parameters()}
        depth, depths = 0, {}
        for name, parameter in self.backbone.named_parameters():
            # what is registered before the blocks feeds them, what comes after reads from them
            depth = block_of.get(id(parameter), len(self.blocks) + 1 if depth else 0)
            depths[name] = depth
        return depths

    def _freeze(self, trainable: bool, frozen_blocks: int) -> None:
        if not 0 <= frozen_blocks <= len(self.blocks):
            raise BundleError(f"frozen_blocks: expected 0 to {len(self.blocks)}, got {frozen_blocks}")
        depths = self.depths()
        for name, parameter in self.backbone.named_parameters():
            if not trainable or (frozen_blocks and depths[name] <= frozen_blocks):
                parameter.requires_grad_(False)


def takes_interpolation(forward: Any) -> bool:
    """Whether a model interpolates its position embeddings only when it is asked to, as all but DINOv2 do."""
    return "interpolate_pos_encoding" in inspect.signature(forward).parameters


def _interpolation(forward: Any) -> dict[str, bool]:
    return {"interpolate_pos_encoding": True} if takes_interpolation(forward) else {}
