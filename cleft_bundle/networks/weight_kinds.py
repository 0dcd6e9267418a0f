"""A mark in state dicts that says whose weights they are, for loaders that copy what fits and pass over the rest."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from cleft_bundle.errors import BundleError

WEIGHTS_OF = "weights_of"  # one number, so that `monai.networks.utils.copy_model_state` copies it like a weight
KINDS = {
    1: "a network for training (cleft.pt)",
    2: "a deployable classifier (model.pt), which monai.bundle.load(…, workflow_type='inference') gives",
}


def mark_weights(network: nn.Module, kind: int) -> None:
    """Let a network's ``state_dict`` say what it is of, and its ``load_state_dict`` refuse what is of another kind.

    :func:`monai.bundle.load` copies into the network of its workflow whatever fits in name and shape: a classifier's
    image tower into a network for training, say, whose other weights would stay random without a word.

    Args:
        network: its state dicts get :data:`WEIGHTS_OF`; those without it, of before version 0.8.0, load as well.
        kind: of :data:`KINDS`.
    """
    network.register_state_dict_post_hook(partial(_give, kind))
    network.register_load_state_dict_pre_hook(partial(_take, kind))


def _give(kind: int, _: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    state[prefix + WEIGHTS_OF] = torch.tensor(kind, dtype=torch.uint8)


def _take(kind: int, _: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    found = int(state.pop(prefix + WEIGHTS_OF, kind))
    if found != kind:
        raise BundleError(f"these are weights of {KINDS[found]}, not of {KINDS[kind]}")
