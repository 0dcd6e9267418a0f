"""CLEFT for chest X-rays and mammograms, as a MONAI bundle."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.12.0"

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


def __getattr__(name: str) -> Any:
    """Import a subpackage, or ``predict``, when it is first named: configs need one import line, scripts start fast."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "predict":
        return importlib.import_module(f"{__name__}.inference").predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
