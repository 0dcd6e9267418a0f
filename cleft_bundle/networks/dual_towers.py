"""The towers of a dual encoder of others, with the answers that those of CLEFT give."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import fingerprint, freeze, load_backbone
from cleft_bundle.networks.image_encoder import ImageEncoder, takes_interpolation
from cleft_bundle.networks.peft_methods import Adapters, Frozen, Full, PeftMethod, resolve_peft
from cleft_bundle.networks.protocol import Adapted
from cleft_bundle.networks.text.text_encoder import Part, unfreeze_parts
from cleft_bundle.networks.token_layout import TokenLayout, measure_layout
from cleft_bundle.networks.weight_names import save_by_own_names

KIND = "dual_encoder"


class DualImageEncoder(ImageEncoder):
    """The image tower of a dual encoder: its vision model, pooled as that model pools, and its projection.

    Args:
        vision: the vision model, which pools its tokens itself.
        projection: into the shared space; ``nn.Identity`` where the pooled feature stands in it already (SigLIP).
        embedding_dim: width D of the shared space.
        peft: how the vision model is adapted: ``full`` trains all of it, ``none`` freezes it, the other methods are
            those of :class:`cleft_bundle.networks.TextEncoder`, but for ``prefix``. None is ``full``.
        frozen_blocks: for ``full``: freeze the embeddings and this many of the first blocks.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        source: what the messages call it.
        pretrained: False where the weights are random.
        seed: of the adapters.

    Raises:
        BundleError: where the method does not go with the model.
    """

    def __init__(
        self,
        vision: Any,
        projection: nn.Module,
        embedding_dim: int,
        peft: Any = None,
        frozen_blocks: int = 0,
        gradient_checkpointing: bool = False,
        source: str = "",
        pretrained: bool = True,
        seed: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        self.peft = _method("image_peft", "full" if peft is None else peft)
        if frozen_blocks and not isinstance(self.peft, Full):
            raise BundleError(f"frozen_blocks: {frozen_blocks} go with image_peft full, not with {self.peft.name}")
        freeze(vision)
        save_by_own_names(vision)
        self.source, self.pretrained = source, pretrained
        self.pooling: Any = "pooled"
        self.projection_kind = "linear"
        self.embedding_dim = embedding_dim
        self.projection = projection.requires_grad_(True)
        self.layout = _layout(vision)
        own = list(vision.named_parameters())
        if gradient_checkpointing:
            vision.gradient_checkpointing_enable({"use_reentrant": False})
        self.backbone = _adapted(self.peft, vision, seed)
        if isinstance(self.peft, Full):
            self._freeze(True, frozen_blocks)
        frozen = [(name, parameter) for name, parameter in own if not parameter.requires_grad]
        self.fingerprint = self.former_fingerprint = fingerprint(frozen) if frozen else None

    @property
    def vision(self) -> Any:
        """The vision model itself, below whatever peft put around it."""
        return _base(self.backbone)

    @property
    def width(self) -> int:
        """Width of the pooled features."""
        return int(self.vision.config.hidden_size)

    @property
    def adapted(self) -> dict[str, Adapted]:
        """``image tower``, where adapters stand beside its layers."""
        return {"image tower": Adapted(self.peft, self.backbone)} if isinstance(self.peft, Adapters) else {}

    def penalty(self) -> torch.Tensor | float:
        """Term that the adapters add to the training loss."""
        return self.peft.penalty(self.backbone)

    def trained_statistics(self) -> dict[str, torch.Tensor]:
        """None: its vision models have no batch norms."""
        return {}

    @property
    def tower(self) -> None:
        """None: the embedding is not the mean of projected tokens."""
        return None

    @property
    def takes_patches(self) -> bool:
        """True for a SigLIP 2 of flexible resolution; the others are ``siglip``."""
        return _takes_patches(self.vision)

    @property
    def image_size(self) -> int:
        """Side of its images in pixels, as it was pre-trained."""
        config = self.vision.config
        return round(config.num_patches**0.5) * int(config.patch_size) if self.takes_patches else int(config.image_size)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of :func:`build_image_encoder`."""
        config = self.vision.config
        return {
            "tower": KIND,
            "backbone": config.to_diff_dict() | {"model_type": config.model_type},
            "embedding_dim": self.embedding_dim,
            "projection": isinstance(self.projection, nn.Linear),
        }

    def merged(self) -> DualImageEncoder:
        """This tower with its adapters within its weights: a copy, or itself where it has none."""
        if not isinstance(self.peft, Adapters):
            return self
        tower = copy.deepcopy(self)
        tower.backbone = tower.backbone.merge_and_unload()
        tower.peft = Frozen()
        return tower

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Pool the tokens of images [B, 3, H, W], before the projection: features [B, :attr:`width`].

        Raises:
            BundleError: where the patch does not divide the sides of the images.
        """
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        rows, columns = int(image.shape[-2]), int(image.shape[-1])
        self.layout.check_size(rows, columns)
        if self.takes_patches:
            return self._flexible(image, rows // self.patch_size, columns // self.patch_size)
        vision = self.vision
        other = (rows, columns) != (self.image_size, self.image_size) and takes_interpolation(vision.forward)
        return pooled(vision(pixel_values=image, **({"interpolate_pos_encoding": True} if other else {})))

    def _flexible(self, image: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Features of SigLIP 2, whose own forward takes patches and resizes its positions for each image by itself."""
        vision = self.vision
        patches = cut_patches(image, self.patch_size)
        grid = vision.embeddings.position_embedding_size
        positions = vision.embeddings.position_embedding.weight
        if (rows, columns) != (grid, grid):
            square = positions.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
            resized = F.interpolate(square, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
            positions = resized.flatten(2).transpose(1, 2)[0]
        hidden = vision.embeddings.patch_embedding(patches) + positions
        return vision.head(vision.post_layernorm(vision.encoder(inputs_embeds=hidden).last_hidden_state))


class DualTextEncoder(nn.Module):
    """The text tower of a dual encoder: its text model, pooled as that model pools, and its projection.

    Args:
        text: the text model.
        projection: into the shared space; ``nn.Identity`` where the model projects itself (SigLIP).
        embedding_dim: width D of the shared space.
        peft: how the text model is adapted, as for :class:`cleft_bundle.networks.TextEncoder`, but for ``prefix``.
        unfreeze: further parts of the model that are trained: ``embeddings`` (of the tokens), ``layer_norms``.
        reads_padding: whether the feature stands at the end of a window of full length, padding included (SigLIP).
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        source: what the messages call it.
        seed: of the adapters.

    Raises:
        BundleError: where the method does not go with the model.
    """

    def __init__(
        self,
        text: Any,
        projection: nn.Module,
        embedding_dim: int,
        peft: Any = "lora",
        unfreeze: Sequence[Part] = (),
        reads_padding: bool = False,
        gradient_checkpointing: bool = False,
        source: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.peft = _method("peft", peft)
        freeze(text)
        self.source, self.embedding_dim, self.reads_padding = source, embedding_dim, reads_padding
        self.pooling = "pooled"
        self.hidden_size = int(text.config.hidden_size)
        self.fingerprint = self.former_fingerprint = fingerprint(text.named_parameters())
        self.projection = projection.requires_grad_(True)
        if gradient_checkpointing:
            text.gradient_checkpointing_enable({"use_reentrant": False})
        self.backbone = _adapted(self.peft, text, seed)
        unfreeze_parts(text, unfreeze)

    @property
    def language_model(self) -> Any:
        """The text model itself, below whatever peft put around it."""
        return _base(self.backbone)

    @property
    def max_positions(self) -> int:
        """Number of tokens, special ones included, that the text model can take."""
        config = self.language_model.config
        return int(getattr(config, "context_length", None) or config.max_position_embeddings)

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings [..., H] of tokens [...]."""
        return self.language_model.get_input_embeddings()(input_ids)

    def penalty(self) -> torch.Tensor | float:
        """Term that the method adds to the training loss."""
        return self.peft.penalty(self.backbone)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed captions: unit vectors [N, D]."""
        return self.project(self.features(input_ids, attention_mask, context))

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Captions in the shared space, before they are normalised.

        Args:
            input_ids: int64 tensor [N, T] of :class:`cleft_bundle.networks.DualEncoderTokenizer`.
            attention_mask: int64 tensor [N, T].
            context: float tensor of input embeddings that stand before the words, behind a token that begins every
                caption: [P, H] before each caption, or [N, P, H], a context of its own for each.

        Returns:
            features [N, D].

        Raises:
            BundleError: where context and caption are longer than the model's window.
        """
        device = self.language_model.device
        input_ids, attention_mask = (each.to(device, non_blocking=True) for each in (input_ids, attention_mask))
        if context is None:
            return self._run(input_ids, attention_mask)
        count, length = len(input_ids), context.shape[-2]
        width = input_ids.shape[1] + length
        if width > self.max_positions:
            raise BundleError(
                f"a context of {length} and captions of {input_ids.shape[1]} tokens are longer than the text model's "
                f"window of {self.max_positions}"
            )
        config = self.language_model.config
        first = attention_mask.argmax(dim=1)  # some tokenizers pad on the left
        rows = torch.arange(count, device=input_ids.device)
        begins = getattr(config, "bos_token_id", None)
        first = first + (input_ids[rows, first] == torch.tensor(-1 if begins is None else begins)).long()
        column = torch.arange(width, device=input_ids.device)
        learnt = (column >= first[:, None]) & (column < first[:, None] + length)
        # a token that the model does not take for the end of the caption stands in for what is learnt
        stand_in = int(getattr(config, "eos_token_id", None) == 0)
        tokens = torch.full_like(learnt, stand_in, dtype=input_ids.dtype).masked_scatter(~learnt, input_ids)
        mask = torch.ones_like(tokens).masked_scatter(~learnt, attention_mask.to(tokens))
        with self._replaced(learnt, context.expand(count, -1, -1)):
            return self._run(tokens, mask)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """L2-normalised embeddings [N, D] of features [N, D]."""
        return F.normalize(features, dim=-1)

    def _run(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = None if self.reads_padding else attention_mask
        return self.projection(pooled(self.language_model(input_ids=input_ids, attention_mask=mask)))

    @contextmanager
    def _replaced(self, place: torch.Tensor, context: torch.Tensor) -> Iterator[None]:
        """Give the model other input embeddings [N, P, H] at places [N, T]: its own forward takes tokens only."""

        def replace(_: nn.Module, __: Any, embedded: torch.Tensor) -> torch.Tensor:
            return embedded.masked_scatter(place[..., None], context.to(embedded.dtype))

        handle = self.language_model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def build_image_encoder(settings: Mapping[str, Any], seed: int = 0, peft: Any = "full") -> ImageEncoder:
    """Build an image tower again, with random weights, from what its ``settings`` gave.

    Args:
        settings: of :class:`cleft_bundle.networks.ImageEncoder` or of :class:`DualImageEncoder`.
        seed: of the weights.
        peft: how the tower is adapted.
    """
    if settings.get("tower") != KIND:
        return ImageEncoder(**settings, seed=seed, peft=peft)
    model: Any = load_backbone(settings["backbone"], "image_backbone", seed=seed)
    vision = getattr(model, "vision_model", model)
    projection: nn.Module = nn.Identity()
    if settings["projection"]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            projection = nn.Linear(int(vision.config.hidden_size), settings["embedding_dim"], bias=False)
    source = f"{settings['backbone']['model_type']} from a config"
    return DualImageEncoder(
        vision, projection, settings["embedding_dim"], peft, source=source, pretrained=False, seed=seed
    )


def cut_patches(image: torch.Tensor, size: int) -> torch.Tensor:
    """Cut images [B, 3, H, W] into patches [B, N, size * size * 3], row by row."""
    cut = image.unfold(2, size, size).unfold(3, size, size)  # [B, 3, rows, columns, size, size]
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def pooled(output: Any) -> torch.Tensor:
    """The pooled feature [N, H] of what a transformer gives; the first token's where it pools nothing."""
    found = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if found is None else found


def _takes_patches(vision: Any) -> bool:
    return str(vision.config.model_type).startswith("siglip2")


def _layout(vision: Any) -> TokenLayout:
    """What a vision model gives; one that takes patches in place of images gives a token each."""
    if not _takes_patches(vision):
        return measure_layout(vision)
    width = int(vision.config.hidden_size)
    return TokenLayout(int(vision.config.patch_size), 0, False, True, {"mean_patches": width, "pooled": width})


def _method(name: str, peft: Any) -> PeftMethod:
    method = resolve_peft(peft)
    if method.virtual_tokens:
        raise BundleError(f"{name}: {method.name} puts keys before a causal model's, which a dual encoder has not")
    return method


def _adapted(method: PeftMethod, model: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.apply(model)


def _base(backbone: Any) -> Any:
    return backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
