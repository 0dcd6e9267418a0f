"""The towers of an open_clip checkpoint as models of transformers, from the values of its config and its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPTextModel,
    CLIPVisionModel,
    SiglipTextModel,
    SiglipVisionModel,
    ViTMSNModel,
)

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.open_clip.weights import (
    NATIVE_TEXT,
    NATIVE_VISION,
    TIMM_SIGLIP,
    TIMM_VIT,
    Weights,
    count_blocks,
    joined_pool,
    part_of,
    renamed_by,
)

#: Attention heads of timm's vision transformers by the size in their names.
TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "so400m": 16, "giantopt": 16}
_TIMM_NAME = re.compile(r"(?:timm/)?vit_([a-z0-9]+)_patch\d+(_siglip)?_\d+(?:\.\w+)?")
#: Of timm's SigLIP towers, those whose GELU is the tanh approximation; the others have the exact one.
_TIMM_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")
_TIMM_EPSILON = 1e-6  # of the norms of timm's vision transformers
_CONTEXT_LENGTH = 77
# what may stand in a part of the config without a meaning here: how it was trained, or what only another part reads
_IGNORED_VISION = {"patch_dropout", "output_tokens", "timm_model_pretrained", "timm_drop", "timm_drop_path"}
_IGNORED_TEXT = {"output_tokens", "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "pad_id", "vocab_size"}
_NATIVE_VALUES = {"width", "layers", "mlp_ratio", "act_kwargs", "norm_kwargs"}


#: By transformers' ``model_type``, how open_clip's names of a tower become transformers'.
RULES = {
    "clip_vision_model": NATIVE_VISION,
    "clip_text_model": NATIVE_TEXT,
    "siglip_text_model": NATIVE_TEXT,
    "siglip_vision_model": TIMM_SIGLIP,
    "vit_msn": TIMM_VIT,
}


def vision_tower(values: Mapping[str, Any], weights: Weights) -> tuple[Any, nn.Module]:
    """Build the vision model and its projection.

    Args:
        values: ``model_cfg``.
        weights: of ``visual``; they are used up.

    Raises:
        BundleError: where the architecture is none that transformers has exactly.
        KeyError: names a weight that is missing.
        RuntimeError: of a strict load, the same.
    """
    cfg, width = values["vision_cfg"], int(values["embed_dim"])
    if cfg.get("timm_model_name"):
        return _timm_tower(cfg, weights, width)
    _check_values("vision_cfg", cfg, {"patch_size", "image_size", "head_width", *_NATIVE_VALUES}, _IGNORED_VISION)
    if isinstance(cfg.get("layers"), list):
        raise BundleError("its image tower is a ResNet of CLIP's, which transformers does not have")
    projection = _linear(weights.pop("proj").T, width)
    model = _built(
        CLIPVisionModel,
        {
            **_sizes(weights, "conv1.weight", "positional_embedding", "mlp.c_fc.weight", class_token=True),
            **_activation_and_norm(cfg, values.get("quick_gelu", False)),
            "num_attention_heads": weights["conv1.weight"].shape[0] // int(cfg.get("head_width", 64)),
            "projection_dim": width,
        },
        renamed_by(weights, NATIVE_VISION),
    )
    return model, projection


def _timm_tower(cfg: Mapping[str, Any], weights: Weights, width: int) -> tuple[Any, nn.Module]:
    name = str(cfg["timm_model_name"])
    own = {"timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias", "image_size"}
    _check_values("vision_cfg", cfg, own, _IGNORED_VISION)
    found = _TIMM_NAME.fullmatch(name)
    if found is None or found[1] not in TIMM_HEADS:
        raise BundleError(f"its image tower is timm's {name}, which is not known here")
    siglip = found[2] is not None
    pool, proj = cfg.get("timm_pool", "avg"), cfg.get("timm_proj", "linear")
    if pool not in (("", "map") if siglip else ("", "token")):
        raise BundleError(f"timm_pool {pool!r} does not go with {name} here")
    head, weights = part_of(weights, "head."), part_of(weights, "trunk.")
    if sorted(head) != (["proj.weight"] if proj == "linear" else []) or proj not in ("linear", "none"):
        raise BundleError(f"timm_proj {proj!r} with the weights {', '.join(sorted(head)) or 'none'} is not known here")
    model = _built(
        SiglipVisionModel if siglip else ViTMSNModel,
        {
            **_sizes(weights, "patch_embed.proj.weight", "pos_embed", "mlp.fc1.weight", class_token=not siglip),
            "hidden_act": "gelu_pytorch_tanh" if _TIMM_TANH.search(name) and siglip else "gelu",
            "layer_norm_eps": _TIMM_EPSILON,
            "num_attention_heads": TIMM_HEADS[found[1]],
        },
        renamed_by(joined_pool(weights), TIMM_SIGLIP) if siglip else renamed_by(weights, TIMM_VIT),
    )
    return model, _linear(head["proj.weight"], width) if head else nn.Identity()


def text_tower(values: Mapping[str, Any], weights: Weights) -> tuple[Any, nn.Module]:
    """Build the text model and its projection: as :func:`vision_tower`, from the weights of ``text``."""
    cfg, width = values["text_cfg"], int(values["embed_dim"])
    if cfg.get("hf_model_name"):
        return _hf_tower(cfg, weights, width)
    known = {"context_length", "heads", "pool_type", "eos_id", "no_causal_mask", "proj_bias", *_NATIVE_VALUES}
    _check_values("text_cfg", cfg, known, _IGNORED_TEXT)
    pool, causal = cfg.get("pool_type", "argmax"), not cfg.get("no_causal_mask", False)
    tokens = weights["token_embedding.weight"]
    config = {
        "vocab_size": tokens.shape[0],
        "hidden_size": tokens.shape[1],
        "max_position_embeddings": weights["positional_embedding"].shape[0],
        "num_hidden_layers": count_blocks(weights),
        "num_attention_heads": int(cfg.get("heads", 8)),
        "intermediate_size": weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        **_activation_and_norm(cfg, values.get("quick_gelu", False)),
        **dict.fromkeys(("bos_token_id", "pad_token_id", "eos_token_id")),
    }
    if causal and pool in ("argmax", "eos") and "text_projection" in weights:
        end = 2 if pool == "argmax" else int(cfg.get("eos_id", 2))  # 2 is CLIPTextModel's word for argmax
        if pool == "eos" and end == 2:
            raise BundleError("pool_type 'eos' with eos_id 2 is not known here")
        projection = _linear(weights.pop("text_projection").T, width)
        config |= {"eos_token_id": end, "projection_dim": width}
        return _built(CLIPTextModel, config, renamed_by(weights, NATIVE_TEXT)), projection
    if not causal and pool == "last" and "text_projection.bias" in weights:
        head = {f"head.{name}": value for name, value in part_of(weights, "text_projection.").items()}
        return _built(
            SiglipTextModel, config | {"projection_size": width}, renamed_by(weights, NATIVE_TEXT) | head
        ), nn.Identity()
    raise BundleError(
        f"pool_type {pool!r}, no_causal_mask {not causal} and this text projection are not known together"
    )


def _hf_tower(cfg: Mapping[str, Any], weights: Weights, width: int) -> tuple[Any, nn.Module]:
    name, pooler = str(cfg["hf_model_name"]), cfg.get("hf_pooler_type", "mean_pooler")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise BundleError(f"the config of its text model {name!r} cannot be loaded: {one_line(error, 200)}") from error
    poolers = ("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler")
    if pooler not in poolers or config.is_encoder_decoder:
        raise BundleError(f"hf_pooler_type {pooler!r} of a {config.model_type} is not known here")
    projection = _hf_projection(part_of(weights, "proj."), width)
    try:
        model: Any = AutoModel.from_config(config, dtype=torch.float32, add_pooling_layer=pooler == "cls_pooler")
    except TypeError as error:
        raise BundleError(f"its text model is a {config.model_type}, which is not known here") from error
    model.load_state_dict(part_of(weights, "transformer."))
    if weights:
        raise BundleError(f"its weight text.{min(weights)} belongs to an architecture that is not known here")
    if pooler == "mean_pooler":
        model.register_forward_hook(_pool_mean, with_kwargs=True)
    config.context_length = int(cfg.get("context_length", _CONTEXT_LENGTH))
    return model, projection


def _hf_projection(weights: Weights, width: int) -> nn.Module:
    if not weights:
        return nn.Identity()
    if set(weights) == {"weight"}:
        return _linear(weights["weight"], width)
    if set(weights) == {"0.weight", "2.weight"}:
        first = weights["0.weight"]
        return nn.Sequential(_linear(first, first.shape[0]), nn.GELU(), _linear(weights["2.weight"], width))
    raise BundleError(f"its weights text.proj.{', '.join(sorted(weights))} are no projection that is known here")


def _pool_mean(_: nn.Module, __: Any, given: Mapping[str, Any], output: Any) -> Any:
    """Give the mean over the tokens that are no padding as the pooled output."""
    mask = given["attention_mask"].unsqueeze(-1)
    output["pooler_output"] = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
    return output


def _check_values(part: str, cfg: Mapping[str, Any], known: set[str], ignored: set[str]) -> None:
    """Refuse a config with a value that would change what the tower computes and that nothing here reads."""
    plain = {"pool_type": "tok", "pos_embed_type": "learnable", "proj_type": "linear", "block_type": "default"}
    odd = [
        key
        for key, value in cfg.items()
        if key not in known | ignored and value not in (None, False, 0, "", plain.get(key))
    ]
    if odd:
        raise BundleError(f"{part}: {odd[0]} {cfg[odd[0]]!r} is not known here")


def _sizes(weights: Weights, patches: str, positions: str, inner: str, class_token: bool) -> dict[str, int]:
    """Sizes of a vision transformer, by its weights."""
    kernel, places = weights[patches], weights[positions]
    side = round((places.shape[-2] - class_token) ** 0.5)
    if side * side != places.shape[-2] - class_token or kernel.shape[-1] != kernel.shape[-2]:
        raise BundleError("its images or patches are not square")
    blocks = "transformer.resblocks.0." if "conv1" in patches else "blocks.0."
    if places.ndim == 3 and not class_token:
        weights[positions] = places[0]
    return {
        "hidden_size": kernel.shape[0],
        "patch_size": kernel.shape[-1],
        "image_size": side * kernel.shape[-1],
        "num_hidden_layers": count_blocks(weights),
        "intermediate_size": weights[blocks + inner].shape[0],
    }


def _activation_and_norm(cfg: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """How open_clip's own transformers activate and normalise."""
    activation, norm = dict(cfg.get("act_kwargs") or {}), dict(cfg.get("norm_kwargs") or {})
    approximate, epsilon = activation.pop("approximate", "none"), norm.pop("eps", 1e-5)
    if activation or norm or approximate not in ("none", "tanh") or (quick and approximate != "none"):
        raise BundleError(f"act_kwargs {cfg.get('act_kwargs')} and norm_kwargs {cfg.get('norm_kwargs')} are not known")
    gelu = {"none": "gelu", "tanh": "gelu_pytorch_tanh"}[approximate]
    return {"hidden_act": "quick_gelu" if quick else gelu, "layer_norm_eps": epsilon}


def _built(kind: Any, config: Mapping[str, Any], weights: Weights) -> Any:
    """A model of transformers with these weights, each of which it must have."""
    model = kind(kind.config_class(**config))
    model.load_state_dict(weights)
    return model


def _linear(weight: torch.Tensor, width: int) -> nn.Linear:
    if weight.ndim != 2 or weight.shape[0] != width:
        raise BundleError(f"its projection is {list(weight.shape)}, where one to {width} is expected")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer
