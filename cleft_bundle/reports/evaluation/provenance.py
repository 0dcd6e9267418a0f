"""The provenance of a figure: command, config, data, weights and packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cleft_bundle.checkpoints import RunIdentity, run_of_file
from cleft_bundle.config import command, command_line, executed_config
from cleft_bundle.distributed import world_size
from cleft_bundle.files import sha256
from cleft_bundle.handlers.tracking import package_versions
from cleft_bundle.networks.protocol import Network


def provenance(network: Network, checkpoint: str | None, identity: RunIdentity) -> dict[str, Any]:
    """Tell how the running evaluation can be repeated.

    Args:
        network: what was evaluated.
        checkpoint: path of its trained weights; None where it has none of its own.
        identity: the run of the evaluation.

    Returns:
        ``run``, the evaluation's identity, its ``command`` (None where no shell started it) and number of
        ``processes``; ``checkpoint``: ``path``, ``sha256`` and ``run`` (the training that wrote it), or None;
        ``backbones``: name to ``source`` and ``fingerprint``, which is None where nothing of it is frozen; ``versions``
        of packages; ``config`` as it was executed.
    """
    files, options = command_line()
    stored = None
    if checkpoint:
        stored = {"path": str(checkpoint), "sha256": sha256(checkpoint), "run": run_of_file(checkpoint)}
    return {
        "run": identity.state_dict(),
        "command": command("evaluating", files, *options) if files else None,
        "processes": world_size(),
        "checkpoint": stored,
        "backbones": network.backbones,
        "versions": package_versions(),
        "config": executed_config(),
    }


def file_read(kind: str, path: str | Path) -> dict[str, str]:
    """Identity of a file: ``kind``, ``path`` and ``sha256``."""
    return {"kind": kind, "path": str(path), "sha256": sha256(path)}
