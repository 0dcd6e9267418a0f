"""The image tower of a classifier as a folder that timm loads, for DINOv2 towers, whose blocks timm has exactly.

``timm.create_model("local-dir:FOLDER", pretrained=True)`` gives a model whose output is the embedding [B, D] before its
normalisation, or the features where the tower has no linear projection; whatever takes timm's models, such as
open_clip's ``timm_model_name``, takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DeployedClassifier, ImageEncoder
from cleft_bundle.networks.weight_names import own_name
from cleft_bundle.packaging import hub
from cleft_bundle.packaging.places import DESCRIPTION

_FAMILIES = ("dinov2", "dinov2_with_registers")
_EPSILON = 1e-6  # of timm's layer norms
_POOLING = {  # timm's arguments
    "tokens_prenorm": {"global_pool": "avg", "pool_include_prefix": True, "final_norm": False, "fc_norm": False},
    "mean_patches": {"global_pool": "avg", "pool_include_prefix": False, "final_norm": True, "fc_norm": False},
    "cls": {"global_pool": "token", "final_norm": True},
}


def export_timm(classifier: DeployedClassifier, folder: Path, description: Mapping[str, Any]) -> None:
    """Write the image tower as timm keeps a model.

    Its position embeddings are those of the training's image size, which is the only one it takes.

    Args:
        classifier: a classifier of class weights or a fine-tuned one.
        folder: is made; it receives ``config.json`` and ``model.safetensors`` of timm, and ``head.safetensors`` and
            ``cleft.json`` as :func:`cleft_bundle.packaging.hub.export_transformers` writes them.
        description: what :func:`cleft_bundle.packaging.describe` says of the classifier.

    Raises:
        BundleError: where the tower is no DINOv2, or one that timm does not have exactly.
    """
    tower = hub.tower_of(classifier)
    _check(tower)
    mean, std = hub.statistics(classifier.preprocessing)
    side = classifier.preprocessing["image_size"]
    head = hub.head_tensors(classifier)
    linear = "projection.weight" in head and head["projection.weight"].ndim == 2
    classes = tower.embedding_dim if linear else 0
    folder.mkdir(parents=True)
    weights = _converted(tower, side)
    if linear:
        weights |= {f"head.{name}": head[f"projection.{name}"] for name in ("weight", "bias")}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / hub.WEIGHTS)
    save_file(head, folder / "head.safetensors")
    hub.write_json(folder / "config.json", _config(tower, side, classes, mean, std))
    hub.write_json(folder / DESCRIPTION, {**description, "pooling": tower.pooling})


def _check(tower: ImageEncoder) -> None:
    config = tower.backbone.config
    reasons = {
        f"its architecture is {config.model_type}": config.model_type not in _FAMILIES,
        "its feed-forward layers are gated": getattr(config, "use_swiglu_ffn", False),
        f"its norms have an epsilon of {config.layer_norm_eps}": config.layer_norm_eps != _EPSILON,
        f"its activation is {config.hidden_act}": config.hidden_act != "gelu",
    }
    if found := [reason for reason, true in reasons.items() if true]:
        raise BundleError(f"timm: this image tower has no exact counterpart, as {found[0]}; take the form transformers")


def _config(tower: ImageEncoder, side: int, classes: int, mean: list[float], std: list[float]) -> dict[str, Any]:
    """``config.json`` as timm reads it; every argument is named, so that the architecture's own do not count."""
    config = tower.backbone.config
    pooling: dict[str, Any] = _POOLING[tower.pooling]
    return {
        "architecture": "vit_small_patch14_reg4_dinov2",
        "num_classes": classes,
        "num_features": config.hidden_size,
        "global_pool": pooling["global_pool"],
        "model_args": {
            **{"img_size": side, "patch_size": config.patch_size, "embed_dim": config.hidden_size},
            **{"depth": config.num_hidden_layers, "num_heads": config.num_attention_heads},
            **{"mlp_ratio": config.mlp_ratio, "qkv_bias": config.qkv_bias, "init_values": config.layerscale_value},
            **{"reg_tokens": getattr(config, "num_register_tokens", 0), "no_embed_class": True},
            **pooling,
        },
        "pretrained_cfg": {
            **{"input_size": [3, side, side], "fixed_input_size": True, "crop_pct": 1.0, "interpolation": "bilinear"},
            **{"mean": mean, "std": std, "num_classes": classes},
            **{"first_conv": "patch_embed.proj", "classifier": "head"},
        },
    }


@torch.no_grad()
def _converted(tower: ImageEncoder, side: int) -> dict[str, torch.Tensor]:
    """The weights of the backbone under timm's names.

    The class token takes its position with it, and the positions are those that the tower interpolates for this size.
    """
    embeddings: nn.Module = tower.backbone.embeddings
    state = {own_name(name): value for name, value in tower.backbone.state_dict().items()}
    patches = (side // tower.patch_size) ** 2
    width = tower.width
    positions = embeddings.interpolate_pos_encoding(
        state["embeddings.cls_token"].new_zeros(1, 1 + patches, width), side, side
    )  # type: ignore[operator]
    weights = {
        "cls_token": state["embeddings.cls_token"] + positions[:, :1],
        "pos_embed": positions[:, 1:],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
    }
    if "embeddings.register_tokens" in state and tower.prefix_tokens > 1:
        weights["reg_token"] = state["embeddings.register_tokens"]
    if tower.pooling != "tokens_prenorm":
        weights |= {f"norm.{part}": state[f"layernorm.{part}"] for part in ("weight", "bias")}
    for block in range(len(tower.blocks)):
        weights |= _block(state, f"encoder.layer.{block}.", f"blocks.{block}.")
    return weights


def _block(state: Mapping[str, torch.Tensor], ours: str, timms: str) -> dict[str, torch.Tensor]:
    weights = {}
    for part in ("weight", "bias"):
        products = [state.get(f"{ours}attention.{name}_proj.{part}") for name in "qkv"]
        if all(product is not None for product in products):  # biases may be absent
            weights[f"attn.qkv.{part}"] = torch.cat([product for product in products if product is not None])
        weights[f"attn.proj.{part}"] = state[f"{ours}attention.o_proj.{part}"]
        for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            weights[f"{layer}.{part}"] = state[f"{ours}{layer}.{part}"]
    for number in (1, 2):
        weights[f"ls{number}.gamma"] = state[f"{ours}layer_scale{number}.lambda1"]
    return {f"{timms}{name}": value for name, value in weights.items()}
