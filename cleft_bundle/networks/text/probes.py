"""Probes of a text tower when it is built, by a few tokens rather than by the name of its model."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.modes import evaluating


class Nature(NamedTuple):
    """Way in which a model reads.

    Attributes:
        causal: whether each token sees only those before it.
        width: of its hidden states, which in some models (OPT-350m) is not the config's ``hidden_size``.
    """

    causal: bool
    width: int


def nature(model: PreTrainedModel, source: str) -> Nature:
    """Measure whether the hidden state of a token depends on the tokens behind it, and how wide it is.

    A model without values (on the meta device) is taken at its word.

    Raises:
        BundleError: where the model does not read text alone.
    """
    stated = [module.is_causal for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)]
    if model.device.type == "meta":
        config: Any = model.config
        return Nature(all(stated), int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size))
    try:
        vocabulary = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
        ids = torch.tensor([[1, 2, 3, 4], [1, 5, 6, 7]], device=model.device) % vocabulary
        with evaluating(model), torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except Exception as error:  # whatever a model raises that wants images, or a decoder's tokens besides
        raise BundleError(f"text_backbone: {source} does not read text alone: {one_line(error, 200)}") from error
    first = hidden[:, 0].double()
    # bfloat16 and experts chosen for others round; what other tokens bring to a model of random weights is 1e-3
    limit = 0.05 if any(stated) else 1e-4
    return Nature(bool((first[0] - first[1]).norm() <= limit * first[0].norm()), int(hidden.shape[-1]))


def drop_pooler(model: Any) -> Any:
    """Take away the layer that BERT's family has behind the first token's state, and that nothing here reads.

    Left in, it would be counted as trained, get no gradient, and be of random weights in most checkpoints.
    """
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    return model


def first_position(model: PreTrainedModel) -> int:
    """Number that a model gives the position of a first token: 0, or in RoBERTa's family that behind the padding's."""
    tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
    return next((int(m.padding_idx) + 1 for m in tables if getattr(m, "padding_idx", None) is not None), 0)


def window(config: Any) -> int:
    """Most tokens back that a model sees, if its config knows a bound: models count columns of a row for it."""
    bounds = [v for key, v in config.to_dict().items() if key.endswith(("window", "window_size", "chunk_size"))]
    return min((b for b in bounds if type(b) is int and b > 0), default=sys.maxsize)


def probe_captions(vocabulary: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions [8, T], closed by token 0, and their lengths [8]: pairs of one length, of which many begin alike."""
    most = min(7, window - 1)
    one, other, end = ([1 + n % (vocabulary - 1) for n in range(start, start + 7)] for start in (0, 7, 14))
    rows = [
        [*one[:3]],
        [*other[:3]],
        [*one[:5]],
        [*other[:5]],
        one,
        other,
        [*one[:4], *end[:3]],
        [*other[:4], *end[:3]],
    ]
    rows = [row[:most] for row in rows]
    ids = torch.tensor([row + [0] * (most + 1 - len(row)) for row in rows])
    return ids, torch.tensor([len(row) for row in rows])
