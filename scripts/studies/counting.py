"""Weight of a config's network: parameters by tower, counted on the meta device without any weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, BertConfig, BertModel, CLIPConfig, CLIPModel

from cleft_bundle.commands.configs import read_config
from cleft_bundle.errors import BundleError
from cleft_bundle.networks.cleft import CLEFT

_BACKBONES = ("network_def#image_encoder#backbone", "network_def#text_encoder#backbone")


def _dinov2(hidden_size: int, num_hidden_layers: int, num_attention_heads: int, registers: bool) -> dict[str, Any]:
    return {
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "image_size": 518,
        "patch_size": 14,
    } | ({"num_register_tokens": 4} if registers else {})


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "facebook/dinov2-small": _dinov2(384, 12, 6, registers=False),
    "facebook/dinov2-base": _dinov2(768, 12, 12, registers=False),
    "facebook/dinov2-large": _dinov2(1024, 24, 16, registers=False),
    "facebook/dinov2-with-registers-small": _dinov2(384, 12, 6, registers=True),
    "facebook/dinov2-with-registers-base": _dinov2(768, 12, 12, registers=True),
    "facebook/dinov2-with-registers-large": _dinov2(1024, 24, 16, registers=True),
    "stanford-crfm/BioMedLM": {
        "model_type": "gpt2",
        "vocab_size": 28896,
        "n_positions": 1024,
        "n_embd": 2560,
        "n_layer": 32,
        "n_head": 20,
        "bos_token_id": 28895,
        "eos_token_id": 28895,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}
"""Of the hub ids that the configs name, what decides on their size, so that nobody needs the hub to count them."""


class Count(NamedTuple):
    """Numbers of parameters: ``total``, and those of them that are trained."""

    total: int
    trainable: int


def architecture(source: str | Mapping[str, Any], role: str) -> dict[str, Any]:
    """Find the config values of a backbone without its weights and without the hub.

    Args:
        source: a local folder, one of :data:`ARCHITECTURES`, or config values, which are taken as they are.
        role: what the backbone is for, as it appears in error messages.

    Returns:
        config values with ``model_type``.

    Raises:
        BundleError: where an id is neither a folder nor known here, or a folder has no readable config.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if os.path.isdir(source):
        try:
            return AutoConfig.from_pretrained(source).to_dict()
        except (OSError, ValueError) as error:
            raise BundleError(f"{role}: the folder {source!r} has no config that can be read: {error}") from error
    if source not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BundleError(f"{role}: {source!r} is no local folder, and of hub ids only these can be counted: {known}")
    return ARCHITECTURES[source]


def build_on_meta(config_file: str | Sequence[str]) -> CLEFT:
    """Build the ``network_def`` of a training config and its overlays on the meta device.

    Args:
        config_file: path of one config, or paths of several, where later ones override earlier ones.

    Returns:
        the network, whose parameters have shapes but no values.

    Raises:
        BundleError: where a file does not exist, there is no ``network_def``, or a backbone is not known.
    """
    parser = read_config(config_file)
    if "network_def" not in parser:
        files = [config_file] if isinstance(config_file, str) else config_file
        raise BundleError(f"config_file: {', '.join(files)} define no 'network_def'")
    for place in _BACKBONES:
        source = parser.get_parsed_content(place)
        parser[place] = architecture(source, place)
    with torch.device("meta"):
        return parser.get_parsed_content("network_def")


def count_towers(network: CLEFT) -> dict[str, Count]:
    """Count the parameters of a network by its parts.

    Returns:
        part to count, the last of them ``total``. What is trained of ``text backbone`` are its unfrozen parts.
    """
    text = network.text_encoder.backbone
    adapters = _adapters(text)
    own = {id(parameter) for parameter in adapters}
    counts = {
        "image backbone": _count(network.image_encoder.backbone.parameters()),
        "image projection": _count(network.image_encoder.projection.parameters()),
        "text backbone": _count(parameter for parameter in text.parameters() if id(parameter) not in own),
        "adapters": _count(adapters),
        "text projection": _count(network.text_encoder.projection.parameters()),
        "logit scale": _count([network.logit_scale]),
    }
    if network.logit_bias is not None:
        counts["logit bias"] = _count([network.logit_bias])
    return counts | {"total": _count(network.parameters())}


def clip_parameters() -> int:
    """Number of parameters of OpenAI's CLIP ViT-B/16, both towers."""
    with torch.device("meta"):
        return _count(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})).parameters()).total


def bert_parameters() -> int:
    """Number of parameters of BERT-base."""
    with torch.device("meta"):
        return _count(BertModel(BertConfig()).parameters()).total


def describe(counts: Mapping[str, Count]) -> str:
    """Write counts and the two headline figures of CLEFT as a table in markdown.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024: 39 % fewer trainable parameters than CLIP, and a trainable
    language model of 4 % of BERT.
    """
    lines = ["| part | parameters | trainable |", "|---|---:|---:|"]
    lines += [f"| {part} | {count.total:,} | {count.trainable:,} |" for part, count in counts.items()]
    scalars = sum(count.trainable for part, count in counts.items() if part.startswith("logit "))
    towers = counts["total"].trainable - scalars
    language = sum(counts[part].trainable for part in ("text backbone", "adapters", "text projection"))
    clip, bert = clip_parameters(), bert_parameters()
    lines += [
        "",
        f"trainable: {counts['total'].trainable:,} = {towers:,} + {scalars} logit scale"
        f"; CLIP ViT-B/16 has {clip:,}: {towers / clip - 1:+.1%}",
        f"trainable language side: {language:,}; BERT-base has {bert:,}: {language / bert:.1%}",
    ]
    return "\n".join(lines)


def _adapters(backbone: nn.Module) -> list[nn.Parameter]:
    """The parameters that peft added to a language model."""
    if not hasattr(backbone, "peft_config"):
        return []
    # peft prefixes the layers that it adds; AdaLoRA counts ranks beside them, and prefix tuning has a prompt encoder
    marks = ("lora_", "ia3_", ".ranknum.", "prompt_encoder.")
    return [parameter for name, parameter in backbone.named_parameters() if any(mark in name for mark in marks)]


def _count(parameters: Any) -> Count:
    counted = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return Count(sum(number for number, _ in counted), sum(number for number, trained in counted if trained))
