"""Config files that are read without being run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from cleft_bundle.errors import BundleError, UsageError, nearest
from cleft_bundle.literals import check_references, literal


def read_config(config_file: str | Sequence[str], override: Mapping[str, Any] | None = None) -> ConfigParser:
    """Read config files without running them; ``bundle_root`` is the folder around the first, as it is in a run.

    Args:
        config_file: path of one config, or paths of several, where later ones override earlier ones.
        override: values by config id.

    Returns:
        the parser, of which nothing is built yet.

    Raises:
        BundleError: a file does not exist, or an id is unknown, or there is none that a value refers to; names it.
    """
    files = existing([config_file] if isinstance(config_file, str) else config_file)
    parser = ConfigParser()
    parser.read_config(files)
    if parser.get("bundle_root") == ".":
        parser["bundle_root"] = literal(str(Path(files[0]).resolve().parent.parent))
    for key in override or {}:
        if key not in parser:
            raise UsageError(f"unknown config id '{key}'{nearest(key, parser.get())}")
    apply_override(parser, override or {})
    return parser


def apply_override(parser: ConfigParser, override: Mapping[str, Any]) -> None:
    """Put values into a config by their ids.

    Raises:
        BundleError: an id is part of nothing, or there is nothing that a value refers to; names it.
    """
    for key, value in override.items():
        if key.rpartition("#")[0] not in parser:
            raise UsageError(f"unknown config id '{key}': there is nothing that it could be a part of")
        parser[key] = value
    check_references(override, parser)


def existing(config_file: Sequence[str]) -> list[str]:
    """Paths of config files, each of which is there.

    Raises:
        BundleError: names the one that is not.
    """
    for file in config_file:
        if not Path(file).is_file():
            raise BundleError(f"config_file: there is no file '{file}'")
    return list(config_file)


def shipped() -> Path:
    """The folder of ``configs`` and ``docs`` that came with this package: in the wheel, or the checkout around it."""
    package = Path(__file__).resolve().parent
    return next(root for root in (package / "bundle", package.parent) if (root / "configs").is_dir())
