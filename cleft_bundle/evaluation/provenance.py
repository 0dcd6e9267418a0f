"""How a figure came about: command, config, data, weights and packages."""

from __future__ import annotations

from typing import Any

from cleft_bundle.config import command, command_line, executed_config
from cleft_bundle.distributed import world_size
from cleft_bundle.files import sha256
from cleft_bundle.handlers.tracking import package_versions
from cleft_bundle.networks import CLEFT, DualEncoder
from cleft_bundle.networks.backbones import fingerprint


def provenance(network: CLEFT | DualEncoder, checkpoint: str | None) -> dict[str, Any]:
    """Tell how the running evaluation can be repeated.

    Args:
        network: what was evaluated.
        checkpoint: path of its trained weights; None where it has none of its own.

    Returns:
        ``command`` (None where no shell started it) and number of ``processes``; ``checkpoint``: ``path`` and
        ``sha256``, or None; ``backbones``: name to ``source`` and ``fingerprint``, which is None where nothing of it is
        frozen; ``versions`` of packages; ``config`` as it was executed.
    """
    files, options = command_line()
    if isinstance(network, CLEFT):
        image, text = network.image_encoder, network.text_encoder
        backbones = {
            "image tower": {"source": image.source, "fingerprint": image.fingerprint},
            "language model": {"source": text.source, "fingerprint": text.fingerprint},
        }
    else:
        weights = fingerprint(network.model.named_parameters())
        backbones = {"dual encoder": {"source": network.source, "fingerprint": weights}}
    return {
        "command": command("evaluating", files, *options) if files else None,
        "processes": world_size(),
        "checkpoint": {"path": str(checkpoint), "sha256": sha256(checkpoint)} if checkpoint else None,
        "backbones": backbones,
        "versions": package_versions(),
        "config": executed_config(),
    }
