"""Packages that only some tasks need."""

from __future__ import annotations

from importlib.util import find_spec

from cleft_bundle.errors import BundleError


def need(extra: str, *modules: str) -> None:
    """Refuse to go on where packages of an optional extra are missing.

    Args:
        extra: the extra of this package that installs them.
        modules: what is going to be imported.

    Raises:
        BundleError: names what is missing and how it is installed.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        raise BundleError(f"this needs {', '.join(missing)}: pip install 'cleft_bundle[{extra}]'")
