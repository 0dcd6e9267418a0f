"""Config files that a command is given, run with an overlay of the bundle's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, run

from cleft_bundle.config import report_errors
from cleft_bundle.config_files import apply_override, existing, read_config, shipped

__all__ = ["existing", "read_config", "run_with"]


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
    apply_override(parser, override)  # by MONAI a wrong one is a traceback, before the run begins
    run(run_id=run_id, config_file=files, workflow_type="train", **override)
