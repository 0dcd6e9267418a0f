"""The files of open_clip checkpoints: a local folder, or a repository of the hub named ``hf-hub:OWNER/NAME``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeGuard

from transformers.utils.hub import cached_file

from cleft_bundle.errors import BundleError, one_line

HUB = "hf-hub:"  # open_clip's own word for it
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def is_open_clip(source: Any) -> TypeGuard[str]:
    """Tell an open_clip checkpoint, ``hf-hub:OWNER/NAME`` or a folder that only open_clip loads, from other sources.

    A folder that holds transformers' ``config.json`` as well is left to transformers.
    """
    if not isinstance(source, str):
        return False
    return source.startswith(HUB) or (
        os.path.isfile(os.path.join(source, CONFIG)) and not os.path.isfile(os.path.join(source, "config.json"))
    )


def place_of(source: str) -> str:
    """The folder, or the hub id without ``hf-hub:``."""
    return source.removeprefix(HUB)


def read_config(source: str) -> dict[str, Any]:
    """Read ``open_clip_config.json``: ``model_cfg`` with ``vision_cfg`` and ``text_cfg``, and ``preprocess_cfg``.

    Raises:
        BundleError: where the file cannot be had or does not hold what open_clip writes.
    """
    path = _file(source, CONFIG)
    if path is None:
        raise BundleError(f"dual_encoder: {_name(source)} has no {CONFIG}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"dual_encoder: {CONFIG} of {_name(source)} cannot be read: {one_line(error)}") from error
    model = values.get("model_cfg") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not all(isinstance(model.get(key), dict) for key in ("vision_cfg", "text_cfg")):
        raise BundleError(f"dual_encoder: {CONFIG} of {_name(source)} has no model_cfg with vision_cfg and text_cfg")
    return values


def find_weights(source: str) -> Path:
    """The file of the weights, the safetensors one where there are both.

    Raises:
        BundleError: where there is none.
    """
    if path := next((path for name in WEIGHTS if (path := _file(source, name))), None):
        return path
    raise BundleError(f"dual_encoder: {_name(source)} has neither {WEIGHTS[0]} nor {WEIGHTS[1]}")


def _file(source: str, name: str) -> Path | None:
    """A file of the folder or the repository; None where that has none of this name."""
    try:
        found = cached_file(place_of(source), name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"dual_encoder: {_name(source)} cannot be loaded: {one_line(error, 300)}") from error
    return None if found is None else Path(found)


def _name(source: str) -> str:
    return repr(Path(source).name if os.path.isdir(source) else source)
