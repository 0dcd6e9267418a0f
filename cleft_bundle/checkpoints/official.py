"""Import of the checkpoints that CLEFT's authors released: PyTorch Lightning files with names of their own."""

from __future__ import annotations

import argparse
import dataclasses
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.extras import require
from cleft_bundle.networks import CLEFT, ImageEncoder, PromptLearner, TextEncoder
from cleft_bundle.networks.backbones import fingerprint, value_fingerprint
from cleft_bundle.networks.weight_kinds import WEIGHTS_OF

BIOMEDLM = "stanford-crfm/BioMedLM"
_PROJECTION = "network_def#{}#projection"  # of either tower
_DTYPE = "text_dtype"
_MAX_SCALE = "network_def#max_logit_scale"

_VIT, _LLM = "image_encoder.backbone.", "text_encoder.language_model."
_BLOCK = r"img_encoder_q\.model\.blocks\.(\d+)\."
# however many levels peft and a task head put around the bare language model
_TEXT = r"text_encoder_q\.model\.(?:(?:base_model|model|transformer)\.)*"
_HEAD = r"(?:head\.)?((?:\d+\.)?(?:weight|bias|running_mean|running_var|num_batches_tracked))"
_IGNORED = {
    r"(?:img|text)_encoder_q\.local_embed\..+": "projection of local features, which CLEFT never uses",
    _TEXT + r"lm_head\.weight": "output head over the vocabulary, tied to the token embeddings and not used",
    _TEXT + r"h\.\d+\.attn\.(?:bias|masked_bias)": "the constant causal mask of GPT-2",
    _TEXT + r"(?:.+\.)?rotary_emb\.inv_freq": "the constant frequencies of the rotary positions",
    _TEXT + r"word_embeddings\.weight": "peft's second name of the token embeddings",
}
#: A key of the authors to where its tensor goes; one with several targets is split among them along its rows.
_RULES: dict[str, tuple[str, ...]] = {
    r"img_encoder_q\.model\.(cls_token|register_tokens|mask_token)": (_VIT + r"embeddings.\1",),
    r"img_encoder_q\.model\.pos_embed": (_VIT + "embeddings.position_embeddings",),
    r"img_encoder_q\.model\.patch_embed\.proj\.(\w+)": (_VIT + r"embeddings.patch_embeddings.projection.\1",),
    _BLOCK + r"(norm[12]|mlp\.fc[12])\.(\w+)": (_VIT + r"encoder.layer.\1.\2.\3",),
    _BLOCK + r"attn\.qkv\.(\w+)": tuple(_VIT + rf"encoder.layer.\1.attention.{x}_proj.\2" for x in "qkv"),
    _BLOCK + r"attn\.proj\.(\w+)": (_VIT + r"encoder.layer.\1.attention.o_proj.\2",),
    _BLOCK + r"ls([12])\.gamma": (_VIT + r"encoder.layer.\1.layer_scale\2.lambda1",),
    _BLOCK + r"mlp\.w12\.(\w+)": tuple(_VIT + rf"encoder.layer.\1.mlp.{x}_proj.\2" for x in ("gate", "up")),
    _BLOCK + r"mlp\.w3\.(\w+)": (_VIT + r"encoder.layer.\1.mlp.down_proj.\2",),
    r"img_encoder_q\.model\.norm\.(\w+)": (_VIT + r"layernorm.\1",),
    r"img_encoder_q\.global_embed\." + _HEAD: (r"image_encoder.projection.\1",),
    _TEXT + r"((?:wte|wpe|h|ln_f|embed_tokens|layers|norm)\..+)": (_LLM + r"\1",),
    r"text_encoder_q\.model\.prompt_encoder\.default\.embedding\.weight": ("prompt.context",),
    r"text_encoder_q\.global_embed\." + _HEAD: (r"text_encoder.projection.\1",),
    r"logit_scale": ("logit_scale",),
}
_GPT2_HEADS = {768: 12, 1024: 16, 1280: 20, 1600: 25, 2560: 20}  # by width; BioMedLM is the last
_BIOMEDLM_SHAPE = (28896, 2560, 32)  # vocabulary, width, layers


class Entry(NamedTuple):
    """Outcome of one key of the file."""

    key: str
    status: Literal["mapped", "ignored"]
    detail: str  # the parameters that it went to, without the levels that peft adds to their names, or why none


@dataclasses.dataclass(frozen=True)
class OfficialImport:
    """Result of importing an official checkpoint.

    Args:
        network: the network, in evaluation mode.
        report: what became of each key, in the file's order.
        settings: the values by which ``configs/train.json`` builds this network, by config id. The language model is
            there as a config; a folder or hub id that holds its weights is to take its place.
        assumed: values that neither the file's tensors nor its hyper-parameters tell, taken from the release.
    """

    network: CLEFT
    report: list[Entry]
    settings: dict[str, Any]
    assumed: list[str]


def import_official(path: str | Path) -> OfficialImport:
    """Build the network of a checkpoint of CLEFT's authors and load every weight of it.

    Architecture follows from the tensors' shapes; what they do not tell comes from the file's ``hyper_parameters``, and
    else from the released models.

    Args:
        path: a Lightning checkpoint with ``state_dict`` and, usually, ``hyper_parameters``.

    Raises:
        BundleError: naming the file, where it cannot be read, holds a key that belongs to nothing (all are listed),
            leaves a parameter of the network without a value, or describes an architecture that is not supported.
    """
    try:
        content = _read(path)
        hyper = _HyperParameters(_plain(content.get("hyper_parameters", {})))
        weights, report = _translate(content["state_dict"])
        settings = _settings(weights, hyper)
        network = _build(settings, weights, Path(path).name)
        _load(network, weights, {name: e.key for e in report if e.status == "mapped" for name in e.detail.split(", ")})
    except ValueError as error:  # BundleErrors, and what Hugging Face says about sizes that do not go together
        raise BundleError(f"{path}: {one_line(error, None)}") from error
    return OfficialImport(network.eval(), report, settings, hyper.assumed)


def is_biomedlm(network: CLEFT) -> bool:
    """True where the language model has the size of BioMedLM, so that its hub id can stand for it."""
    config = network.text_encoder.language_model.config
    return (config.vocab_size, config.hidden_size, config.num_hidden_layers) == _BIOMEDLM_SHAPE


def save_language_model(network: CLEFT, folder: str | Path) -> None:
    """Write the frozen language model, without its adapters, as a Hugging Face folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network.text_encoder.language_model.config.save_pretrained(folder)
    tensors = {name: tensor.detach().contiguous() for name, tensor in _frozen_language_model(network).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


class _HyperParameters:
    """The file's hyper-parameters, which remembers each value that they lack."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.assumed: list[str] = []

    def get(self, name: str, default: Any, section: str = "") -> Any:
        values = self.values.get(section) if section else self.values
        if isinstance(values, Mapping) and values.get(name) is not None:
            return values[name]
        self.assumed.append(f"{name} = {default}")
        return default


def _read(path: str | Path) -> dict[str, Any]:
    """Load the file without running code in it and without reading its tensors before they are needed."""
    if not Path(path).is_file():
        raise BundleError("this file does not exist; expected a checkpoint of CLEFT's authors")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError(f"this file cannot be read: {one_line(error)}") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BundleError("this is no Lightning checkpoint: expected 'state_dict' with tensors by name")
    return content


def _plain(value: Any) -> Any:
    """Turn namespaces into dictionaries, at every level."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    return {key: _plain(child) for key, child in value.items()} if isinstance(value, Mapping) else value


def _translate(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[Entry]]:
    """Tensors by the network's names, and what became of each key."""
    weights: dict[str, torch.Tensor] = {}
    report, leftover = [], []
    for key, tensor in state.items():
        reason = next((reason for pattern, reason in _IGNORED.items() if re.fullmatch(pattern, key)), None)
        if reason is not None:
            report.append(Entry(key, "ignored", reason))
            continue
        targets = _targets(key)
        parts = tensor.chunk(len(targets)) if len(targets) > 1 and tensor.ndim else (tensor,)
        if len(parts) != len(targets) or weights.keys() & set(targets):
            leftover.append(key)
            continue
        weights.update(zip(targets, parts, strict=True))
        report.append(Entry(key, "mapped", ", ".join(targets)))
    _refuse_leftover(leftover)
    return weights, report


def _targets(key: str) -> list[str]:
    for pattern, templates in _RULES.items():
        match = re.fullmatch(pattern, key)
        if match:
            return [match.expand(template).replace(".base_layer.", ".") for template in templates]
    return []


def _refuse_leftover(keys: list[str]) -> None:
    if keys:
        raise BundleError(f"{len(keys)} keys belong to nothing that this bundle has: {', '.join(keys)}")


def _settings(weights: Mapping[str, torch.Tensor], hyper: _HyperParameters) -> dict[str, Any]:
    """Everything that rebuilds the network, by the ids of ``configs/train.json``."""
    text_backbone = _gpt2(weights, hyper) if f"{_LLM}wte.weight" in weights else _llama(weights)
    embeddings = "wte" if text_backbone["model_type"] == "gpt2" else "embed_tokens"
    peft = _peft(weights, hyper)
    settings = {
        "image_backbone": _dinov2(weights, hyper),
        "text_backbone": text_backbone,
        "tokenizer_source": BIOMEDLM if text_backbone["vocab_size"] == _BIOMEDLM_SHAPE[0] else "@text_backbone",
        "peft": peft,
        "unfreeze_text": [],
        "embedding_dim": _embedding_dim(weights),
        "pooling": "tokens_prenorm" if hyper.get("pool_feat", True) else "cls",
        **_projection(weights, "image_encoder"),
        **_projection(weights, "text_encoder"),
        _DTYPE: str(weights[f"{_LLM}{embeddings}.weight"].dtype).removeprefix("torch."),
        _MAX_SCALE: None,  # the release does not clamp
        "image_size": 224,
        "image_mean": 0.5,
        "image_std": 0.5,
    }
    if "prompt.context" in weights:
        settings["context_length"] = _prompt_length(weights, text_backbone)
        # the release learns it before whole captions, each tokenised on its own
        settings |= {"objective": "contrastive", "prompts_follow": ""}
    return settings


def _dinov2(weights: Mapping[str, torch.Tensor], hyper: _HyperParameters) -> dict[str, Any]:
    """The config of the image backbone."""
    width, _, patch, _ = _shape(weights, f"{_VIT}embeddings.patch_embeddings.projection.weight")
    positions = _shape(weights, f"{_VIT}embeddings.position_embeddings")[1]
    swiglu = f"{_VIT}encoder.layer.0.mlp.down_proj.weight" in weights
    config = {
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": _depth(weights, f"{_VIT}encoder.layer."),
        # every DINOv2 has heads of 64
        "num_attention_heads": _heads(hyper.get("num_heads", None if width % 64 else width // 64, "tiny_vit"), width),
        "patch_size": patch,
        "image_size": math.isqrt(positions - 1) * patch,
        "mlp_ratio": 4 if swiglu else _shape(weights, f"{_VIT}encoder.layer.0.mlp.fc1.weight")[0] // width,
        "use_swiglu_ffn": swiglu,
        "layer_norm_eps": 1e-6,
    }
    registers = weights.get(f"{_VIT}embeddings.register_tokens")
    if registers is not None:
        config |= {"model_type": "dinov2_with_registers", "num_register_tokens": registers.shape[1]}
    return config


def _gpt2(weights: Mapping[str, torch.Tensor], hyper: _HyperParameters) -> dict[str, Any]:
    """The config of a language model of the GPT-2 family, which BioMedLM is."""
    vocabulary, width = _shape(weights, f"{_LLM}wte.weight")
    layers = _depth(weights, f"{_LLM}h.")
    return {
        "model_type": "gpt2",
        "vocab_size": vocabulary,
        "n_positions": _shape(weights, f"{_LLM}wpe.weight")[0],
        "n_embd": width,
        "n_layer": layers,
        "n_head": _heads(hyper.get("n_head", _GPT2_HEADS.get(width), "tiny_gpt2"), width),
        "n_inner": _shape(weights, f"{_LLM}h.0.mlp.c_fc.weight")[1],
        "layer_norm_epsilon": 1e-5,
        # BioMedLM divides the attention scores of each layer by the layer's number
        "scale_attn_by_inverse_layer_idx": (vocabulary, width, layers) == _BIOMEDLM_SHAPE,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),  # the tokenizer's business
    }


def _heads(number: int | None, width: int) -> int:
    if number is None:
        raise BundleError(f"hyper_parameters do not say how many heads a transformer {width} wide has")
    return number


def _llama(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The config of a language model of the Llama 2 family, which Meditron is: its heads are 128 wide."""
    if f"{_LLM}embed_tokens.weight" not in weights:
        raise BundleError("the language model is neither of the GPT-2 nor of the Llama family")
    vocabulary, width = _shape(weights, f"{_LLM}embed_tokens.weight")
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _depth(weights, f"{_LLM}layers."),
        "num_attention_heads": max(_shape(weights, f"{_LLM}layers.0.self_attn.q_proj.weight")[0] // 128, 1),
        "num_key_value_heads": max(_shape(weights, f"{_LLM}layers.0.self_attn.k_proj.weight")[0] // 128, 1),
        "intermediate_size": _shape(weights, f"{_LLM}layers.0.mlp.gate_proj.weight")[0],
        "rms_norm_eps": 1e-5,
    }


def _peft(weights: Mapping[str, torch.Tensor], hyper: _HyperParameters) -> dict[str, Any]:
    """How the language model is adapted: LoRA where there are its factors, else not at all."""
    factors = {name: tensor for name, tensor in weights.items() if ".lora_A." in name}
    if not factors:
        return {"_target_": "cleft_bundle.networks.Frozen"}
    ranks = sorted({len(tensor) for tensor in factors.values()})
    if len(ranks) > 1:
        raise BundleError(f"LoRA has the ranks {ranks} in different layers; one rank for all is supported")
    return {
        "_target_": "peft.LoraConfig",
        "r": ranks[0],
        "lora_alpha": hyper.get("alpha", 32, "lora"),
        "lora_dropout": hyper.get("dropout", 0.1, "lora"),
        "target_modules": sorted({name.split(".lora_A.")[0].rsplit(".", 1)[-1] for name in factors}),
    }


def _embedding_dim(weights: Mapping[str, torch.Tensor]) -> int:
    """Width of the shared space: what the last layer of the text projection gives."""
    layers = [name for name in weights if name.startswith("text_encoder.projection.") and weights[name].ndim == 2]
    if not layers:
        raise BundleError("no key of the file gives text_encoder.projection.weight")
    return len(weights[max(layers)])


def _projection(weights: Mapping[str, torch.Tensor], tower: str) -> dict[str, Any]:
    """The kind of a tower's projection, by config id; ``linear`` is the default and goes without saying."""
    if f"{tower}.projection.weight" in weights:
        return {}
    return {_PROJECTION.format(tower): _shape(weights, f"{tower}.projection.0.weight")[0]}


def _prompt_length(weights: Mapping[str, torch.Tensor], language_model: Mapping[str, Any]) -> int:
    length, width = _shape(weights, "prompt.context")
    if width != language_model.get("n_embd", language_model.get("hidden_size")):
        raise BundleError(
            f"prompt_encoder is {width} wide: prefix tuning is not supported, only LoRA and prompt tuning"
        )
    return length


def _shape(weights: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...]:
    if name not in weights:
        raise BundleError(f"no key of the file gives {name}")
    return tuple(weights[name].shape)


def _depth(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def _build(settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor], name: str) -> CLEFT:
    """The network that the settings describe, with random weights."""
    values = {key: value for key, value in settings["peft"].items() if key != "_target_"}
    peft = require("peft", "train").LoraConfig(**values) if values else "none"
    width = settings["embedding_dim"]
    image, text = (settings.get(_PROJECTION.format(tower), "linear") for tower in ("image_encoder", "text_encoder"))
    network = CLEFT(
        ImageEncoder(settings["image_backbone"], width, settings["pooling"], image),
        TextEncoder(settings["text_backbone"], width, peft, projection=text, dtype=settings[_DTYPE]),
        max_logit_scale=settings[_MAX_SCALE],
    )
    network.text_encoder.source = f"the language model of {name}"
    if "prompt.context" in weights:
        network.learn_prompt(PromptLearner(network.text_encoder, _no_words, length=settings["context_length"]))
    return network


def _no_words(_: Any) -> dict[str, torch.Tensor]:
    """Stands in for the tokenizer, which the file does not hold, where a context starts that is overwritten anyway."""
    return {"input_ids": torch.zeros(2, 1, dtype=torch.long), "attention_mask": torch.tensor([[1], [0]])}


def _load(network: CLEFT, weights: Mapping[str, torch.Tensor], origin: Mapping[str, str]) -> None:
    """Put every tensor where it belongs, and refuse gaps and remainders."""
    tensors = {_canonical(name): tensor for name, tensor in network.state_dict().items() if name != WEIGHTS_OF}
    _refuse_leftover(list(dict.fromkeys(origin[name] for name in weights if name not in tensors)))
    missing = [name for name in tensors if name not in weights]
    if missing:
        raise BundleError(f"{len(missing)} parameters of the network receive nothing: {', '.join(missing)}")
    for name, tensor in tensors.items():
        shapes = tuple(weights[name].shape), tuple(tensor.shape)
        if shapes[0] != shapes[1]:
            raise BundleError(f"{origin[name]} gives {name} the shape {shapes[0]}, expected {shapes[1]}")
        tensor.copy_(weights[name])
    frozen = _frozen_language_model(network).items()
    network.text_encoder.fingerprint = fingerprint(frozen)
    network.text_encoder.former_fingerprint = value_fingerprint(frozen)


def _canonical(name: str) -> str:
    """A parameter's name without the levels that peft puts around the language model."""
    name = re.sub(r"^text_encoder\.backbone\.(?:base_model\.model\.)?", _LLM, name)
    return name.replace(".base_layer.", ".")


def _frozen_language_model(network: CLEFT) -> dict[str, torch.Tensor]:
    """The language model's own parameters by the names that they have without adapters."""
    named = ((_canonical(name), parameter) for name, parameter in network.named_parameters())
    return {
        name.removeprefix(_LLM): parameter
        for name, parameter in named
        if name.startswith(_LLM) and ".lora_" not in name
    }
