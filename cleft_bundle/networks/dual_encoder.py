"""Dual encoders of others (CLIP, SigLIP, SigLIP 2 and their like), to be evaluated as CLEFT is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.backbones import describe_source, fingerprint, load_backbone
from cleft_bundle.networks.protocol import DualNetwork

_NEEDED = ("get_image_features", "get_text_features", "logit_scale")


class DualEncoder(DualNetwork):
    """A Hugging Face model that embeds images and captions, behind the methods by which CLEFT is evaluated.

    Args:
        source: hub id (``google/medsiglip-448``, ``openai/clip-vit-base-patch32``), local folder, or config values with
            ``model_type`` for random weights.
        seed: seed of random weights.

    Raises:
        BundleError: where the model cannot be loaded or is no dual encoder.
    """

    def __init__(self, source: str | Mapping[str, Any], seed: int = 0) -> None:
        super().__init__()
        self.model: Any = load_backbone(source, "dual_encoder", seed=seed)
        self.source = describe_source(source)
        if missing := [name for name in _NEEDED if not hasattr(self.model, name)]:
            raise BundleError(
                f"dual_encoder: {self.source!r} is a {type(self.model).__name__} without {missing[0]}: expected one "
                "that embeds images and captions, such as CLIP or SigLIP"
            )
        self.requires_grad_(False)

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        vision = self.model.config.vision_config
        return math.isqrt(vision.num_patches) * vision.patch_size if self._takes_patches else int(vision.image_size)

    @property
    def _takes_patches(self) -> bool:
        return self.model.config.model_type == "siglip2"  # SigLIP 2 of flexible resolution; the others are "siglip"

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        size = getattr(self.model.config.vision_config, "patch_size", None)
        return size if isinstance(size, int) else super().patch_size

    @property
    def backbones(self) -> dict[str, dict[str, str | None]]:
        """``dual encoder``."""
        return {"dual encoder": {"source": self.source, "fingerprint": fingerprint(self.model.named_parameters())}}

    @property
    def logit_scale(self) -> torch.Tensor:  # type: ignore[override]  # a parameter of the model
        """Logarithm of :attr:`scale`."""
        return self.model.logit_scale

    @property
    def logit_bias(self) -> torch.Tensor | None:  # type: ignore[override]
        """What is added to scaled similarities, a scalar tensor: SigLIP's; None for CLIP."""
        bias = getattr(self.model, "logit_bias", None)
        return None if bias is None else bias.squeeze()

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities, a scalar tensor."""
        return self.model.logit_scale.exp().squeeze()

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W], normalised as the model's own processor does, as unit vectors [B, D]."""
        inputs = _patches(image, self.model.config.vision_config.patch_size) if self._takes_patches else {}
        features = self.model.get_image_features(**({"pixel_values": image} | inputs))
        return F.normalize(_pooled(features), dim=-1)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed captions [N, T] of :class:`DualEncoderTokenizer` as unit vectors [N, D]."""
        mask = None if _reads_padding(self.model.config) else attention_mask
        features = self.model.get_text_features(input_ids=input_ids, attention_mask=mask)
        return F.normalize(_pooled(features), dim=-1)


class DualEncoderTokenizer:
    """Tokenise captions as a dual encoder's own processor does.

    CLIP pads to the longest caption. SigLIP has no mask: its text feature stands at the end of a window of full length,
    and captions that are padded less come out near chance.

    Args:
        source: hub id or local folder of the tokenizer.
        network: the dual encoder, whose window it fills.

    Raises:
        BundleError: where the tokenizer cannot be loaded.
    """

    def __init__(self, source: str, network: DualEncoder) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = one_line(error)
            raise BundleError(f"dual_encoder: the tokenizer of {source!r} cannot be loaded: {reason}") from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        config = network.model.config
        self.max_length = int(config.text_config.max_position_embeddings)
        self.padding = "max_length" if _reads_padding(config) else "longest"

    def __call__(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise N captions: ``input_ids`` and ``attention_mask``, int64 tensors [N, T]."""
        tokens = self.tokenizer(
            list(captions),
            padding=self.padding,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {key: tokens[key] for key in ("input_ids", "attention_mask")}

    @property
    def window(self) -> str:
        """The limit of the model."""
        return f"the model's window of {self.max_length} tokens"

    def is_cut(self, captions: Sequence[str]) -> list[bool]:
        """Whether each caption is longer than the window, so that its end is not read."""
        rows = self.tokenizer(list(captions), verbose=False)["input_ids"]
        return [len(row) > self.max_length for row in rows]


def _reads_padding(config: Any) -> bool:
    return str(config.model_type).startswith("siglip")


def _patches(image: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """Images [B, 3, H, W] as SigLIP 2 takes them: patches [B, N, size * size * 3] in rows, all of them valid."""
    rows, columns = image.shape[2] // size, image.shape[3] // size
    cut = image.unfold(2, size, size).unfold(3, size, size)  # [B, 3, rows, columns, size, size]
    patches = cut.permute(0, 2, 3, 4, 5, 1).reshape(len(image), rows * columns, -1)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int32, device=image.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * len(image), device=image.device),
    }


def _pooled(features: Any) -> torch.Tensor:
    """The projected feature, which transformers 5 hands out within an output object."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
