"""Config files that a command is given: run with an overlay of the bundle's, or read without being run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, run

from cleft_bundle.commands.init import shipped
from cleft_bundle.config import report_errors
from cleft_bundle.errors import BundleError, UsageError, nearest
from cleft_bundle.literals import check_references, literal


def run_with(overlay: str, run_id: str, config_file: Sequence[str], override: Mapping[str, Any]) -> None:
    """Run config files as ``python -m monai.bundle run`` does, with an overlay of the bundle's on top.

    Args:
        overlay: its name, such as ``describe.json``: the file beside the first config file, else the one that came with
            this package.
        run_id: what is run.
        config_file: a config and its overlays.
        override: values by config id.

    Raises:
        BundleError: a file does not exist, an id is unknown, or what the run raises.
    """
    report_errors()
    files = existing(config_file)
    beside = Path(files[0]).with_name(overlay)
    last = beside if beside.is_file() else shipped() / "configs" / overlay
    files = [*files, str(last)]
    parser = ConfigParser()
    parser.read_config(files)
    _override(parser, override)  # by MONAI a wrong one is a traceback, before the run begins
    run(run_id=run_id, config_file=files, workflow_type="train", **override)


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
    _override(parser, override or {})
    return parser


def _override(parser: ConfigParser, override: Mapping[str, Any]) -> None:
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
