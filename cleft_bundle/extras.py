"""Packages that only a part of the bundle needs: imported where they are used, and named with their extra if absent."""

from __future__ import annotations

from typing import Any

from monai.utils import OptionalImportError, optional_import

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
    package = module.split(".", maxsplit=1)[0]
    found, known = optional_import(module, descriptor=f"{package} cannot be imported")
    if known:
        return found
    try:
        found()  # raises what MONAI knows of the failed import
    except OptionalImportError as error:
        reason = " ".join(str(error).split("\n\n", maxsplit=1)[0].split())
        raise BundleError(f"{reason.removesuffix('.')}: pip install 'cleft_bundle[{extra}]'") from error
