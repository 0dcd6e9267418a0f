"""The text tower of CLEFT: a causal language model, frozen but for its adapters, and a projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.backbones import describe_source, fingerprint, freeze, load_backbone

# Attention projections that LoRA adapts where a config names none: fused in GPT-2, query and value elsewhere,
# as CLEFT's release does for BioMedLM and Meditron.
LORA_TARGETS: dict[str, list[str]] = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}


class TextEncoder(nn.Module):
    """A causal language model under LoRA that maps a tokenised caption to a unit vector of the shared space.

    The text feature is the hidden state, after the final norm, at the first position that the attention mask leaves
    out: the EOS token which ends the caption. :class:`cleft_bundle.data.CaptionCollate` always leaves room for it.

    Args:
        backbone: hub id, local folder, or config values with ``model_type`` for random weights.
        embedding_dim: width D of the shared space.
        lora: arguments of :class:`peft.LoraConfig` (``r``, ``lora_alpha``, ``lora_dropout``, ``target_modules``);
            without ``target_modules`` those of CLEFT for the architecture are taken. None freezes the model in full.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        seed: seed of random weights: those of the adapters, of the projection and of a backbone from a config.
        dtype: precision of the frozen weights, such as ``"bfloat16"``; adapters and projection stay in float32.

    Raises:
        BundleError: where the backbone cannot be loaded, or a LoRA target matches none of its layers.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024; Hu et al., "LoRA", ICLR 2022.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        embedding_dim: int = 512,
        lora: Mapping[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        model = load_backbone(backbone, "text_backbone", seed=seed, dtype=getattr(torch, dtype))
        model.config.use_cache = False
        freeze(model)
        self.fingerprint = fingerprint(model.named_parameters())
        self.source = describe_source(backbone)
        hidden_size = int(model.config.hidden_size)
        if gradient_checkpointing:
            # non-reentrant: the reentrant form gives no gradient to adapters whose inputs are frozen
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone: Any = model if lora is None else _add_lora(model, lora)
            self.projection = nn.Linear(hidden_size, embedding_dim)

    @property
    def max_positions(self) -> int:
        """Number of tokens, EOS included, that the language model can take."""
        return int(self.backbone.config.max_position_embeddings)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed captions.

        Args:
            input_ids: int64 tensor [N, T], padded on the right with EOS, at least one EOS a row.
            attention_mask: int64 tensor [N, T], 1 for the caption's tokens and 0 from its EOS on.

        Returns:
            L2-normalised embeddings [N, D].

        Raises:
            ValueError: where a row has no position that the mask leaves out.
        """
        lengths = attention_mask.sum(dim=1)
        if bool((lengths >= attention_mask.shape[1]).any()):
            raise ValueError("a caption fills its row: leave one EOS token outside the attention mask")
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        feature = hidden[torch.arange(len(hidden), device=hidden.device), lengths]
        return F.normalize(self.projection(feature.to(self.projection.weight.dtype)), dim=-1)


def _add_lora(model: PreTrainedModel, lora: Mapping[str, Any]) -> nn.Module:
    arguments = dict(lora)
    targets: Sequence[str] | None = arguments.pop("target_modules", None) or LORA_TARGETS.get(model.config.model_type)
    linear = sorted({name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if _is_linear(layer)})
    if not targets:
        raise BundleError(
            f"lora: {model.config.model_type!r} has no default target_modules; "
            f"its linear layers are {', '.join(linear)}"
        )
    missing = [target for target in targets if target.rsplit(".", 1)[-1] not in linear]
    if missing:
        raise BundleError(
            f"lora: target_modules {', '.join(missing)} match no layer; the linear layers are {', '.join(linear)}"
        )
    try:
        # GPT-2 keeps its weights transposed (Conv1D), which peft must be told
        config = LoraConfig(target_modules=list(targets), fan_in_fan_out="c_attn" in targets, **arguments)
    except TypeError as error:
        raise BundleError(f"lora: {error}") from error
    return get_peft_model(model, config)


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
