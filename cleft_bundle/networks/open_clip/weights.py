"""Weights of open_clip's towers under the names that transformers has for the same architectures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from cleft_bundle.errors import BundleError

Weights = dict[str, torch.Tensor]
Rules = tuple[tuple[str, str], ...]

_QKV = "{qkv}"  # in a new name: queries, keys and values are one weight of open_clip's and three of transformers'


def _blocks(old: str, new: str, names: Mapping[str, str]) -> Rules:
    """Rules for the blocks of a transformer, from what stands before a block's number and for its layers."""
    return tuple((rf"{old}\.(\d+)\.{name}(.*)", rf"{new}.\1.{to}\2") for name, to in names.items())


_NATIVE = _blocks(
    r"transformer\.resblocks",
    "encoder.layers",
    {
        r"ln_1\.": "layer_norm1.",
        r"ln_2\.": "layer_norm2.",
        r"attn\.in_proj_": f"self_attn.{_QKV}_proj.",
        r"attn\.out_proj\.": "self_attn.out_proj.",
        r"mlp\.c_fc\.": "mlp.fc1.",
        r"mlp\.c_proj\.": "mlp.fc2.",
    },
)
_FEED_FORWARD = {r"mlp\.": "mlp."}

#: open_clip's VisionTransformer to transformers' CLIPVisionModel.
NATIVE_VISION: Rules = (
    (r"(class_embedding)", r"embeddings.\1"),
    (r"positional_embedding", "embeddings.position_embedding.weight"),
    (r"conv1\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"ln_pre\.(.*)", r"pre_layrnorm.\1"),
    (r"ln_post\.(.*)", r"post_layernorm.\1"),
    *_NATIVE,
)

#: open_clip's TextTransformer to transformers' CLIPTextModel and SiglipTextModel.
NATIVE_TEXT: Rules = (
    (r"positional_embedding", "embeddings.position_embedding.weight"),
    (r"token_embedding\.(.*)", r"embeddings.token_embedding.\1"),
    (r"ln_final\.(.*)", r"final_layer_norm.\1"),
    *_NATIVE,
)

#: timm's vision transformer with a class token to transformers' ViTMSNModel, the ViT that has no pooler.
TIMM_VIT: Rules = (
    (r"(cls_token)", r"embeddings.\1"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embeddings.projection.\1"),
    (r"norm\.(.*)", r"layernorm.\1"),
    *_blocks(
        "blocks",
        "layers",
        {
            r"norm1\.": "layernorm_before.",
            r"norm2\.": "layernorm_after.",
            r"attn\.qkv\.": f"attention.{_QKV}_proj.",
            r"attn\.proj\.": "attention.o_proj.",
            **_FEED_FORWARD,
        },
    ),
)

#: timm's vision transformer of SigLIP to transformers' SiglipVisionModel.
TIMM_SIGLIP: Rules = (
    (r"pos_embed", "embeddings.position_embedding.weight"),
    (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"norm\.(.*)", r"post_layernorm.\1"),
    (r"attn_pool\.latent", "head.probe"),
    (r"attn_pool\.in_proj\.(.*)", r"head.attention.in_proj_\1"),
    (r"attn_pool\.proj\.(.*)", r"head.attention.out_proj.\1"),
    (r"attn_pool\.norm\.(.*)", r"head.layernorm.\1"),
    (r"attn_pool\.mlp\.(.*)", r"head.mlp.\1"),
    *_blocks(
        "blocks",
        "encoder.layers",
        {
            r"norm1\.": "layer_norm1.",
            r"norm2\.": "layer_norm2.",
            r"attn\.qkv\.": f"self_attn.{_QKV}_proj.",
            r"attn\.proj\.": "self_attn.out_proj.",
            **_FEED_FORWARD,
        },
    ),
)


def part_of(weights: Weights, prefix: str) -> Weights:
    """Take the weights out whose names begin so, and leave that beginning out of their names."""
    return {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}


def renamed_by(weights: Weights, rules: Rules) -> Weights:
    """Weights of a tower under transformers' names.

    Raises:
        BundleError: where a weight is known to no rule, so that the architecture is another.
    """
    found: Weights = {}
    for name, value in weights.items():
        new = _new_names(name, rules)
        found |= dict(zip(new, value.chunk(len(new)), strict=True)) if len(new) > 1 else {new[0]: value}
    return found


def restored_by(weights: Mapping[str, torch.Tensor], rules: Rules, names: Iterable[str]) -> Weights:
    """Weights of a tower under open_clip's names again: the inverse of :func:`renamed_by`.

    Args:
        weights: by transformers' names.
        rules: by which they were renamed.
        names: that open_clip gave.
    """
    new = {name: _new_names(name, rules) for name in names}
    return {name: torch.cat([weights[part] for part in parts]) for name, parts in new.items()}


def _new_names(name: str, rules: Rules) -> list[str]:
    """Transformers' names of a weight of open_clip's: three where it holds queries, keys and values."""
    new = next((match.expand(to) for rule, to in rules if (match := re.fullmatch(rule, name))), None)
    if new is None:
        raise BundleError(f"its weight {name} belongs to an architecture that is not known here")
    return [new.replace(_QKV, part) for part in "qkv"] if _QKV in new else [new]


def joined_pool(weights: Weights) -> Weights:
    """Weights of timm's attention pooling with its queries, keys and values in one, as torch's attention has them."""
    joined = dict(weights)
    for kind in ("weight", "bias"):
        names = f"attn_pool.q.{kind}", f"attn_pool.kv.{kind}"
        if all(name in joined for name in names):
            joined[f"attn_pool.in_proj.{kind}"] = torch.cat([joined.pop(name) for name in names])
    return joined


def joined_names(names: Iterable[str]) -> list[str]:
    """Names of the weights that :func:`joined_pool` gives."""
    return list(joined_pool(dict.fromkeys(names, torch.empty(0))))


def split_pool(weights: Weights) -> Weights:
    """The inverse of :func:`joined_pool`."""
    split = dict(weights)
    for kind in ("weight", "bias"):
        if (whole := split.pop(f"attn_pool.in_proj.{kind}", None)) is not None:
            first, *rest = whole.chunk(3)
            split |= {f"attn_pool.q.{kind}": first, f"attn_pool.kv.{kind}": torch.cat(rest)}
    return split


def count_blocks(names: Iterable[str]) -> int:
    """Number of blocks of a tower, by the names of its weights."""
    numbers = [
        int(match[1]) for name in names if (match := re.match(r"(?:transformer\.resblocks|blocks)\.(\d+)\.", name))
    ]
    return 1 + max(numbers, default=-1)
