"""Small configs with random weights of the families of image backbones, and what each gives."""

from __future__ import annotations

from typing import Any

_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_VIT |= {"initializer_range": 0.2}
_CNN = {"hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 2, 1]}
_DUAL = {"vision_config": {**_VIT, "patch_size": 16, "image_size": 32}, "text_config": {**_VIT, "vocab_size": 49408}}

#: Values of a config by model type.
CONFIGS: dict[str, dict[str, Any]] = {
    "dinov2": {**_VIT, "patch_size": 14, "image_size": 28},
    "dinov2_with_registers": {**_VIT, "patch_size": 14, "image_size": 28, "num_register_tokens": 4},
    "dinov3_vit": {**_VIT, "patch_size": 16, "image_size": 32, "num_register_tokens": 4},
    "dinov3_convnext": _CNN,
    "siglip_vision_model": {**_VIT, "patch_size": 16, "image_size": 32},
    "siglip": _DUAL,
    "clip_vision_model": {**_VIT, "patch_size": 16, "image_size": 32},
    "clip": _DUAL,
    "vit": {**_VIT, "patch_size": 16, "image_size": 32},
    "deit": {**_VIT, "patch_size": 16, "image_size": 32},
    "beit": {**_VIT, "patch_size": 16, "image_size": 32},
    "convnext": _CNN,
    "convnextv2": _CNN,
    "resnet": {"embedding_size": 8, **_CNN},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2},
}
#: Model type to stride in pixels, tokens before the patches, width, whether sides must be multiples, and poolings.
GIVES = {
    "dinov2": (14, 1, 16, True, "tokens_prenorm cls mean_patches pooled"),
    "dinov2_with_registers": (14, 5, 16, True, "tokens_prenorm cls mean_patches pooled"),
    "dinov3_vit": (16, 5, 16, True, "cls mean_patches pooled"),
    "dinov3_convnext": (32, 1, 24, True, "cls mean_patches pooled"),
    "siglip_vision_model": (16, 0, 16, True, "tokens_prenorm mean_patches pooled"),
    "siglip": (16, 0, 16, True, "tokens_prenorm mean_patches pooled"),
    "clip_vision_model": (16, 1, 16, True, "cls mean_patches pooled"),
    "clip": (16, 1, 16, True, "cls mean_patches pooled"),
    "vit": (16, 1, 16, True, "cls mean_patches pooled"),
    "deit": (16, 2, 16, True, "cls mean_patches pooled"),
    "beit": (16, 1, 16, True, "cls mean_patches pooled"),
    "convnext": (32, 0, 24, True, "mean_patches pooled"),
    "convnextv2": (32, 0, 24, True, "mean_patches pooled"),
    "resnet": (32, 0, 24, False, "mean_patches pooled"),
    "swin": (32, 0, 64, False, "mean_patches pooled"),
}


def config(model_type: str) -> dict[str, Any]:
    """Values that :func:`cleft_bundle.networks.backbones.load_backbone` builds."""
    return {"model_type": model_type, **CONFIGS[model_type]}
