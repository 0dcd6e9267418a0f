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
        new = next((match.expand(to) for rule, to in rules if (match := re.fullmatch(rule, name))), None)
        if new is None:
            raise BundleError(f"its weight {name} belongs to an architecture that is not known here")
        if _QKV in new:
            found |= {new.replace(_QKV, part): each for part, each in zip("qkv", value.chunk(3), strict=True)}
        else:
            found[new] = value
    return found


def joined_pool(weights: Weights) -> Weights:
    """Weights of timm's attention pooling with its queries, keys and values in one, as torch's attention has them."""
    joined = dict(weights)
    for kind in ("weight", "bias"):
        names = f"attn_pool.q.{kind}", f"attn_pool.kv.{kind}"
        if all(name in joined for name in names):
            joined[f"attn_pool.in_proj.{kind}"] = torch.cat([joined.pop(name) for name in names])
    return joined


def count_blocks(names: Iterable[str]) -> int:
    """Number of blocks of a tower, by the names of its weights."""
    numbers = [
        int(match[1]) for name in names if (match := re.match(r"(?:transformer\.resblocks|blocks)\.(\d+)\.", name))
    ]
    return 1 + max(numbers, default=-1)
