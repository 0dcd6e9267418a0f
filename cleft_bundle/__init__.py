"""CLEFT for chest X-rays and mammograms, as a MONAI bundle."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.11.0"

_ROOMS = (
    "checkpoints",
    "config",
    "data",
    "distributed",
    "engines",
    "handlers",
    "inference",
    "inferers",
    "losses",
    "metrics",
    "networks",
    "stores",
    "transforms",
)


def __getattr__(name: str) -> ModuleType:
    """Import a subpackage when it is first named, so that configs need one import line and scripts start fast."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
