"""open_clip checkpoints (BiomedCLIP is one) as models of transformers, which train and score without open_clip.

The architectures that transformers has exactly are taken over weight by weight; every weight and every value of the
config must be known. Where open_clip is installed (the extra ``open_clip``), its tokens and embeddings are compared.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from monai.utils import optional_import
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.backbones import describe_source
from cleft_bundle.networks.open_clip.pair import OpenClipModel, Origin, pooled
from cleft_bundle.networks.open_clip.tokenizer import load_open_clip_tokenizer
from cleft_bundle.networks.open_clip.towers import text_tower, vision_tower
from cleft_bundle.networks.open_clip.weights import Weights, part_of
from cleft_bundle.open_clip_files import HUB, find_weights, read_config

logger = logging.getLogger(__name__)

_PROBES = ["no finding", "A chest X-ray of a patient with Pleural effusion."]


def load_open_clip(source: str) -> Any:
    """Load an open_clip checkpoint as a model of transformers, or as a pair of such models.

    Args:
        source: a local folder with ``open_clip_config.json``, or ``hf-hub:OWNER/NAME``.

    Returns:
        a ``CLIPModel``, a ``SiglipModel`` or, for other pairs of towers, an :class:`OpenClipModel`; in float32.

    Raises:
        BundleError: where the files cannot be read, or the architecture is none of those that transformers has exactly:
            open_clip's own vision transformer, timm's with a class token and SigLIP's; open_clip's own text
            transformer, causal or SigLIP's, and BERT-like models of transformers.

    Source: Ilharco et al., "OpenCLIP", 2021, https://github.com/mlfoundations/open_clip (MIT).
    """
    name = describe_source(source)
    config = read_config(source)
    values, weights = config["model_cfg"], _read_weights(source)
    origin = Origin(config, list(weights))
    tokenizer = load_open_clip_tokenizer(source)
    try:
        vision, visual_projection = vision_tower(values, part_of(weights, "visual."))
        text, text_projection = text_tower(values, part_of(weights, "text."))
        scale, bias = weights.pop("logit_scale").reshape(()), weights.pop("logit_bias", None)
        if weights:
            raise BundleError(f"its weight {min(weights)} belongs to an architecture that is not known here")
    except (BundleError, KeyError, RuntimeError) as error:
        reason = f"its weights lack {error}" if isinstance(error, KeyError) else one_line(error, 300)
        raise BundleError(f"dual_encoder: {name!r} of open_clip cannot be taken over: {reason}") from error
    text.config.bos_token_id = _first_token(tokenizer)
    model = _paired(vision, text, visual_projection, text_projection, scale, bias, origin).eval()
    _compare(model, tokenizer, source, name)
    return model


def _read_weights(source: str) -> Weights:
    """The weights as open_clip names them today, those of the text tower below ``text.``."""
    path = find_weights(source)
    try:
        stored: dict[str, Any] = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except Exception as error:  # whatever safetensors, zip files and pickles raise
        raise BundleError(f"dual_encoder: {path.name} cannot be read: {one_line(error, 200)}") from error
    stored = stored.get("state_dict", stored)
    weights = {name.removeprefix("module."): value.float() for name, value in stored.items()}
    if "positional_embedding" in weights:  # as the class CLIP has them
        own = ("visual.", "logit_")
        weights = {name if name.startswith(own) else f"text.{name}": value for name, value in weights.items()}
    derived = ("text.attn_mask", "text.transformer.embeddings.position_ids")
    return {name: value for name, value in weights.items() if name not in derived}


def _paired(
    vision: Any,
    text: Any,
    visual_projection: nn.Module,
    text_projection: nn.Module,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    origin: Origin,
) -> Any:
    """One model of both towers: transformers' own where it has one."""
    kinds = vision.config.model_type, text.config.model_type, bias is not None
    projects = not isinstance(visual_projection, nn.Identity)
    configs = {"vision_config": vision.config.to_dict(), "text_config": text.config.to_dict()}
    if kinds == ("clip_vision_model", "clip_text_model", False):
        config = AutoConfig.for_model("clip", projection_dim=vision.config.projection_dim, **configs)
    elif kinds == ("siglip_vision_model", "siglip_text_model", True) and not projects:
        config = AutoConfig.for_model("siglip", **configs)
    else:
        return OpenClipModel(vision, text, visual_projection, text_projection, scale, bias, origin)
    with torch.device("meta"):
        model: Any = AutoModel.from_config(config)
    model.vision_model, model.text_model = vision, text
    if projects:
        model.visual_projection, model.text_projection = visual_projection, text_projection
    model.logit_scale = nn.Parameter(scale.reshape(model.logit_scale.shape))
    if bias is not None:
        model.logit_bias = nn.Parameter(bias.reshape(model.logit_bias.shape))
    model.config.text_config, model.config.vision_config = text.config, vision.config
    return model


def _first_token(tokenizer: Any) -> int | None:
    """The token that begins every text, behind which a learnt context stands; None where there is none."""
    first = tokenizer(_PROBES[0])["input_ids"][0]
    return int(first) if first in tokenizer.all_special_ids else None


@torch.no_grad()
def _compare(model: Any, tokenizer: Any, source: str, name: str) -> None:
    """Refuse a model whose tokens or embeddings are not open_clip's; where that is not installed, the log says so."""
    open_clip, found = optional_import("open_clip")
    if not found:
        logger.info(
            "dual_encoder: %s is taken over without a comparison with open_clip, which cannot be imported "
            "(pip install 'cleft_bundle[open_clip]')",
            name,
        )
        return
    where = source if source.startswith(HUB) else f"local-dir:{source}"
    own = open_clip.create_model(where).eval()
    tokens = open_clip.get_tokenizer(where)(_PROBES)
    ours = tokenizer(_PROBES, padding="max_length", max_length=tokens.shape[1], truncation=True, return_tensors="pt")
    siglip = model.config.text_config.model_type == "siglip_text_model"  # it reads what it is padded with
    mask = torch.ones_like(tokens) if siglip else ours["attention_mask"]
    if not torch.equal(tokens * mask, ours["input_ids"] * mask):
        raise BundleError(f"dual_encoder: {name!r} has a tokenizer whose tokens are others in open_clip than here")
    side = model.config.vision_config.image_size
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    pairs = {
        "image": (own.encode_image(image), model.get_image_features(image)),
        "text": (own.encode_text(tokens), model.get_text_features(ours["input_ids"], None if siglip else mask)),
    }
    for what, (expected, given) in pairs.items():
        feature = given if isinstance(given, torch.Tensor) else pooled(given)
        if (F.normalize(feature, dim=-1) - F.normalize(expected, dim=-1)).norm(dim=-1).max() > 1e-4:
            raise BundleError(f"dual_encoder: {name!r} makes its {what} embeddings otherwise in open_clip than here")
