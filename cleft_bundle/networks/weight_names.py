"""Names of an image tower's weights in files of this bundle, whatever the installed transformers calls them.

transformers renames the modules of its models from time to time, and keeps only its own files readable. What this
bundle saves has names of its own, which are those of transformers 5.18 to 5.23; every other spelling that a released
version wrote or needs stands in :data:`SPELLINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

Value = TypeVar("Value")

#: Version of the names; another one needs a reader of this one.
VERSION = 1

#: Patterns of other spellings, to the names of this version: DINOv2's attention before transformers 5.18.
SPELLINGS = (
    (re.compile(r"\.attention\.attention\.query\."), ".attention.q_proj."),
    (re.compile(r"\.attention\.attention\.key\."), ".attention.k_proj."),
    (re.compile(r"\.attention\.attention\.value\."), ".attention.v_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
)


def own_name(name: str) -> str:
    """The name under which a weight stands in files; one that no spelling matches stays as it is.

    Examples:
        >>> own_name("encoder.layer.0.attention.attention.query.weight")
        'encoder.layer.0.attention.q_proj.weight'
    """
    for spelling, own in SPELLINGS:
        name = spelling.sub(own, name)
    return name


def renamed(weights: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """Weights of a file under the names of a network.

    Args:
        weights: names in any known spelling to anything.
        names: of the network, as the installed transformers spells them.

    Returns:
        The same values; names that belong to no weight of the network stay, so that a strict load refuses them.
    """
    current = {own_name(name): name for name in names}
    return {current.get(own_name(name), name): value for name, value in weights.items()}


def save_by_own_names(backbone: nn.Module) -> None:
    """Let a module's ``state_dict`` give, and its ``load_state_dict`` take, the names of files."""
    backbone.register_state_dict_post_hook(_give_own_names)
    backbone.register_load_state_dict_pre_hook(_take_any_names)


def _give_own_names(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        if (own := own_name(name)) != name:
            state[own] = state.pop(name)


def _take_any_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    stored = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    own = [prefix + name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    state.update(renamed(stored, own))
