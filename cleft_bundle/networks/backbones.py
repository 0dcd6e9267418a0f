"""Backbones from a hub id, a local folder, or a config for one with random weights."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.weight_names import own_name

logger = logging.getLogger(__name__)


def load_backbone(source: str | Mapping[str, Any], role: str, seed: int = 0, **kwargs: Any) -> PreTrainedModel:
    """Load the bare transformer (no task head) of a Hugging Face model.

    Args:
        source: a hub id (``facebook/dinov2-with-registers-base``), a local folder, or a mapping of config values with
            ``model_type``, which builds that architecture with random weights.
        role: what the backbone is for, as it appears in error messages (``image_backbone``).
        seed: seed of the random weights when ``source`` is a mapping; the global random state is left as it was.
        kwargs: further arguments of ``AutoModel.from_pretrained`` and ``AutoModel.from_config``. The ``dtype`` is
            float32 unless they give another, whatever the weights are stored in: what is trained needs it.

    Raises:
        BundleError: where a folder does not exist, an id cannot be resolved, or a config lacks ``model_type``.
    """
    kwargs.setdefault("dtype", torch.float32)
    if isinstance(source, Mapping):
        values = dict(source)
        model_type = values.pop("model_type", None)
        if model_type is None:
            raise BundleError(f"{role}: a config of a backbone needs 'model_type', it has only {sorted(values)}")
        try:
            config = AutoConfig.for_model(model_type, **values)
        except (ValueError, TypeError) as error:
            raise BundleError(f"{role}: model_type {model_type!r} cannot be built: {one_line(error, 300)}") from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _without_random_positions(AutoModel.from_config(config, **kwargs))
    _check_folder(source, role)
    try:
        model, report = AutoModel.from_pretrained(source, output_loading_info=True, **kwargs)
    except (OSError, ValueError) as error:
        raise BundleError(f"{role}: {source!r} cannot be loaded: {one_line(error, 300)}") from error
    if missing := sorted(report["missing_keys"]):
        logger.warning(
            "%s: %s has no weights for %d parameters, which are random: %s",
            *(role, describe_source(source), len(missing), ", ".join(missing[:3])),
        )
    return model


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a hub id or a local folder and make it pad on the right with its EOS token.

    Where there is none, the SEP that BERT's family puts behind a text takes its place.

    Raises:
        BundleError: where the folder does not exist, nothing can be loaded from it, or the tokenizer has neither EOS
            nor SEP token, behind a caption the position that carries the text feature of CLEFT.
    """
    _check_folder(source, "tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BundleError(f"tokenizer: {source!r} cannot be loaded: {one_line(error, 300)}") from error
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.eos_token_id is None:
        raise BundleError(f"tokenizer: {source!r} has no EOS token, whose hidden state is the text feature")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def fingerprint(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Identify weights without storing them, in whichever precision they are kept.

    It is a SHA-256 over the name, the shape and up to 4096 evenly spaced signs of every tensor. Rounding moves a value
    but leaves its sign, also where it becomes zero, so that the same weights have the same fingerprint from a hub or a
    folder, in float32, float16 and bfloat16, rounded once or twice. A digest of values cannot have that: some of them
    lie where two ways of rounding part. The price: weights that differ in size alone, such as the gains of norms, have
    the same one. Numbers other than floating-point ones (4-bit weights) count by their values.

    Args:
        parameters: pairs of name and tensor; the order does not count.

    Returns:
        64 hexadecimal digits.
    """
    return _digest(parameters, 4096, lambda sample: torch.signbit(sample) if sample.is_floating_point() else sample)


def value_fingerprint(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Identify weights by a sample of their values, which also tells those apart that differ in size alone.

    It is a SHA-256 over the name, the shape and up to 256 evenly spaced values of every tensor, rounded to bfloat16. A
    copy of float32 weights in bfloat16 has the same one; a copy in float16, which is rounded twice, has another.

    Args:
        parameters: pairs of name and tensor; the order does not count.

    Returns:
        64 hexadecimal digits.
    """
    return _digest(parameters, 256, lambda sample: sample.to(torch.bfloat16).view(torch.int16))


def _digest(
    parameters: Iterable[tuple[str, torch.Tensor]], values: int, read: Callable[[torch.Tensor], torch.Tensor]
) -> str:
    digest = hashlib.sha256()
    named = ((own_name(name), tensor) for name, tensor in parameters)
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.is_meta:  # counted by its shape only, as scripts/count_parameters.py does
            continue
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // values)][:values]
        digest.update(read(sample.cpu()).numpy().tobytes())
    return digest.hexdigest()


def describe_source(source: str | Mapping[str, Any]) -> str:
    """Name a backbone in messages and checkpoints: its id, its folder's own name, or its model type."""
    if isinstance(source, Mapping):
        return f"{source.get('model_type')} from a config"
    return Path(source).name if os.path.isdir(source) else str(source)


def freeze(module: nn.Module) -> None:
    """Stop gradients for every parameter of a module."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Count the parameters of a network: ``total_parameters`` and ``trainable_parameters``."""
    parameters = list(network.parameters())
    return {
        "total_parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    }


def _without_random_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Start the position embeddings of GPT-2 at zero where its weights are random.

    In a frozen random model the position of EOS, that is the length of the caption, would otherwise outweigh its
    words: all captions of one length would come out nearly equal, and contrastive training collapses onto length.
    """
    positions: Any = getattr(model, "wpe", None)
    if positions is not None:
        torch.nn.init.zeros_(positions.weight)
    return model


def _check_folder(source: str, role: str) -> None:
    looks_like_a_path = os.path.isabs(source) or source.startswith((".", "~")) or source.count("/") != 1
    if looks_like_a_path and "/" in source and not os.path.isdir(source):
        raise BundleError(f"{role}: the folder {source!r} does not exist")


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The blocks of a transformer, or the stages of a hierarchical backbone, from the first to the last."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [module for name, module in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    return max(outer, key=len)
