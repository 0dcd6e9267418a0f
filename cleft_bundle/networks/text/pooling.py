"""Pooling: one vector for a caption from the hidden states that a text tower gives its tokens."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from cleft_bundle.errors import BundleError, require_one_of

Pooling = Literal["auto", "end", "cls", "mean"]


def resolve_pooling(asked: str, causal: bool, source: str) -> str:
    """The pooling that a config asks of a model.

    Args:
        asked: ``end``: the state at the EOS behind the caption, which in a causal model alone has seen all of it;
            ``cls``: the state of the first token, or ``mean``: that of all tokens, those that the tokenizer adds
            included, in models that read in both directions; ``auto``: ``end`` or ``mean``, by the model.
        causal: whether each token sees only those before it.
        source: name of the model.

    Raises:
        BundleError: where the pooling is none of these, or does not go with the model.
    """
    require_one_of("text_pooling", asked, get_args(Pooling))
    if asked == "auto":
        return "end" if causal else "mean"
    if causal and asked != "end":
        raise BundleError(
            f"text_pooling: in {source} tokens see only those before them: expected end or auto, got {asked}"
        )
    if not causal and asked == "end":
        raise BundleError(f"text_pooling: {source} reads in both directions: expected cls, mean or auto, got end")
    return asked


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Features [N, H] of captions.

    Args:
        hidden: hidden states [N, T, H].
        mask: [N, T], 1 for the tokens of a caption and 0 behind it.
        pooling: ``end``, ``cls`` or ``mean``.
    """
    length = mask.sum(dim=1)
    if pooling == "end":
        return hidden[torch.arange(len(hidden), device=hidden.device), length]
    if pooling == "cls":
        return hidden[:, 0]
    return hidden.masked_fill(mask[..., None] == 0, 0.0).sum(dim=1) / length[:, None]
