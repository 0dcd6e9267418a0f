"""Packages that only a part of the bundle needs: imported where they are used, and named with their extra if absent."""

from __future__ import annotations

import importlib
from typing import Any

from cleft_bundle.errors import BundleError


def require(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its full name.
        extra: the extra of this package in pyproject.toml that brings it.

    Returns:
        the module.

    Raises:
        BundleError: where it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".", maxsplit=1)[0]
        raise BundleError(f"{package} cannot be imported ({error}): pip install 'cleft_bundle[{extra}]'") from error
