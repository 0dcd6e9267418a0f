"""The image tower of CLEFT: a vision backbone, a pooling of what it gives, and a projection into the shared space."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, get_args

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError, one_line, require_one_of
from cleft_bundle.networks.backbones import (
    blocks_of,
    describe_source,
    fingerprint,
    freeze,
    load_backbone,
    value_fingerprint,
)
from cleft_bundle.networks.peft_methods import Adapters, Full, PeftMethod, resolve_peft
from cleft_bundle.networks.projection import Projection, build_projection
from cleft_bundle.networks.protocol import Adapted, Network
from cleft_bundle.networks.token_layout import (
    Pooling,
    TokenLayout,
    measure_layout,
    run_backbone,
    takes_interpolation,
    tokens_before_norm,
)
from cleft_bundle.networks.weight_names import save_by_own_names

__all__ = ["ImageEncoder", "Pooling", "takes_interpolation"]


class ImageEncoder(Network):
    """A Hugging Face vision backbone that maps an image to a unit vector of the shared space.

    Args:
        backbone: hub id, local folder, or config values with ``model_type`` for random weights. Of a dual encoder such
            as CLIP the vision model is taken. Image sides need not be those it was pre-trained on: position embeddings
            are interpolated. It is kept in float32, whatever it is stored in.
        embedding_dim: width D of the shared space.
        pooling: how the outputs of the last block become one vector.
            ``tokens_prenorm`` is CLEFT's: the mean over all tokens, class and register tokens included, before the
            final layer norm. ``cls`` is the class token and ``mean_patches`` the mean over the patch tokens, or over
            the places of a map, both as the model's last hidden state has them. ``pooled`` is the model's own pooled
            output: SigLIP's attention head, the normalised mean of ConvNeXt.
        projection: ``linear``, ``mlp`` or the width of an ``mlp``, see
            :func:`cleft_bundle.networks.projection.build_projection`.
        trainable: False is the same as ``peft="none"``.
        frozen_blocks: freeze the embeddings and this many of the first blocks.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        seed: seed of random weights: of the projection and adapters, and of the backbone where it is a config.
        peft: how the backbone is adapted: ``full`` trains all of it, ``none`` freezes it, others are those of
            :func:`cleft_bundle.networks.peft_methods.resolve_peft` that adapt layers. The projection is always trained.
        image_size: side in pixels of the images that will come, to be checked here; None leaves that to
            :meth:`features`.

    Raises:
        BundleError: where the backbone cannot be loaded, does not offer the pooling, cannot be adapted in this way, has
            fewer blocks, or would not see all of an image.

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
        peft: Any = "full",
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        require_one_of("pooling", pooling, get_args(Pooling))
        self.backbone: Any = _vision_model(load_backbone(backbone, "image_backbone", seed=seed))
        self.layout: TokenLayout = measure_layout(self.backbone)
        if pooling not in self.layout.poolings:
            name, offered = type(self.backbone).__name__, ", ".join(self.layout.poolings)
            raise BundleError(f"pooling: {name} has no {pooling}, it offers {offered}")
        if image_size is not None:
            self.layout.check_size(image_size)
        save_by_own_names(self.backbone)
        self.source = describe_source(backbone)
        self.pretrained = not isinstance(backbone, Mapping)
        self.pooling = pooling
        self.projection_kind = projection
        self.embedding_dim = embedding_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection = build_projection(projection, self.width, embedding_dim)
        self.peft = _resolve(peft, trainable, frozen_blocks)
        self._freeze(self.peft.name == "full", frozen_blocks)
        frozen = [(name, p) for name, p in self.backbone.named_parameters() if not p.requires_grad]
        self.fingerprint = fingerprint(frozen) if frozen else None
        self.former_fingerprint = value_fingerprint(frozen) if frozen else None  # what 0.6.0 wrote into checkpoints
        if gradient_checkpointing:
            self._recompute()
        self._peft_model = _adapt(self.peft, self.backbone, seed)
        self._statistics = [
            f"{name}.{statistic}"
            for name, module in self.backbone.named_modules(prefix="backbone")
            if isinstance(module, _BatchNorm) and not _is_frozen(module)
            for statistic, _ in module.named_buffers()
        ]

    @property
    def patch_size(self) -> int:
        """Side in pixels of what a token, or a place of the last map, stands for; image sides are multiples of it."""
        return self.layout.stride

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the patches: class and register tokens."""
        return self.layout.prefix

    @property
    def width(self) -> int:
        """Width of the pooled features."""
        return self.layout.poolings[self.pooling]

    @property
    def title(self) -> str:
        """Name of the backbone, and of the method that adapts it, if any."""
        return f"{self.source}, {self.peft}" if self.adapted else self.source

    @property
    def adapted(self) -> dict[str, Adapted]:
        """``image tower``, where adapters stand beside its layers."""
        return {} if self._peft_model is None else {"image tower": Adapted(self.peft, self._peft_model[0])}

    def penalty(self) -> torch.Tensor | float:
        """Term that the adapters add to the training loss."""
        return 0.0 if self._peft_model is None else self.peft.penalty(self._peft_model[0])

    def trained_statistics(self) -> dict[str, torch.Tensor]:
        """Running statistics by name of the batch norms that are trained, as convolutional backbones have them."""
        buffers = dict(self.named_buffers())
        return {name: buffers[name] for name in self._statistics}

    def train(self, mode: bool = True) -> ImageEncoder:
        """Set the mode; batch norms of the backbone that are frozen keep their statistics in either."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and _is_frozen(module):
                module.eval()
        return self

    def merged(self) -> ImageEncoder:
        """This tower with what adapters have learnt in the weights themselves: a copy, or itself where there are none.

        Raises:
            BundleError: where the method does not know how.
        """
        if self._peft_model is None:
            return self
        tower = copy.deepcopy(self)
        model: Any = tower.adapted["image tower"].model
        try:
            tower.backbone = model.merge_and_unload()
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise BundleError(f"image_peft: {self.peft} cannot be merged: {one_line(error, 200)}") from error
        tower.peft, tower._peft_model, tower.fingerprint, tower.former_fingerprint = Full(), None, None, None
        tower.backbone.requires_grad_(True)
        return tower

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
        """The blocks of the backbone, or the stages of a hierarchical one, from the first to the last."""
        return blocks_of(self.backbone)

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

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Pool the backbone's tokens, before the projection: what a linear probe or a head of its own classifies.

        Args:
            image: float tensor [B, 3, H, W], normalised with the backbone's statistics.

        Returns:
            features [B, :attr:`width`].

        Raises:
            BundleError: where a side is not a multiple of :attr:`patch_size`, and the border would not be seen.
        """
        # a MetaTensor would carry its metadata through every layer, which costs time and is of no use here
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        self.layout.check_size(int(image.shape[2]), int(image.shape[3]))
        if self.pooling == "tokens_prenorm":
            return tokens_before_norm(self.backbone, image).mean(dim=1)
        output = run_backbone(self.backbone, image)
        if self.pooling == "pooled":
            return output.pooler_output.flatten(1)
        hidden = output.last_hidden_state
        if self.layout.is_map:
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if self.pooling == "cls" else hidden[:, self.prefix_tokens :].mean(dim=1)

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

    def _recompute(self) -> None:
        if not self.backbone.supports_gradient_checkpointing:
            raise BundleError(f"gradient_checkpointing: {type(self.backbone).__name__} does not know it; set it false")
        self.backbone.gradient_checkpointing_enable({"use_reentrant": False})


def _vision_model(model: PreTrainedModel) -> Any:
    """The vision model of a dual encoder, and any other model itself."""
    vision = getattr(model, "vision_model", None)
    return vision if isinstance(vision, PreTrainedModel) else model


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _resolve(peft: Any, trainable: bool, frozen_blocks: int) -> PeftMethod:
    """The method of a vision backbone.

    Raises:
        BundleError: where there is no such method, it is one of language models, or it contradicts the other values.
    """
    try:
        method = resolve_peft(peft)
    except BundleError as error:
        raise BundleError(f"image_{error}") from error
    if method.virtual_tokens:
        raise BundleError(f"image_peft: {method} learns keys and values before a caption, which images have none of")
    if isinstance(method, Adapters) and (frozen_blocks or not trainable):
        raise BundleError(f"image_peft: {method} freezes the whole backbone; leave trainable and frozen_blocks out")
    return method if trainable else resolve_peft("none")


def _adapt(method: PeftMethod, backbone: PreTrainedModel, seed: int) -> tuple[nn.Module] | None:
    """Put adapters into a frozen backbone.

    Returns:
        What peft puts around the backbone, in a tuple so that it is no module of the tower: the tower calls the
        backbone itself, whose layers have been replaced. None where the method adds nothing.
    """
    if not isinstance(method, Adapters):
        return None
    freeze(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return (method.apply(backbone),)
        except BundleError as error:
            raise BundleError(f"image_peft: {error}") from error
