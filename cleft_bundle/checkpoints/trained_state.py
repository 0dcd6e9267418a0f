"""What training changed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cleft_bundle.checkpoints import files
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import CLEFT

FORMAT = 1
MADE_BY = "training writes it, or pass the path of another one"


class TrainedState:
    """The trained part of a network, in the form that MONAI's ``CheckpointSaver`` saves and loads.

    The state holds the trainable parameters and the fingerprint of the frozen language model, never its weights.

    Args:
        network: the dual encoder.
    """

    def __init__(self, network: CLEFT) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        """Collect what was trained.

        Returns:
            ``format``, ``weights`` (name to tensor) and ``text_backbone`` (``source`` and ``fingerprint``).
        """
        weights = {name: parameter.detach() for name, parameter in self._trainable()}
        text = self.network.text_encoder
        return {
            "format": FORMAT,
            "weights": weights,
            "text_backbone": {"source": text.source, "fingerprint": text.fingerprint},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put trained weights back into the network.

        Raises:
            BundleError: where the state has another format, was trained on another language model (both fingerprints
                are named), or does not fit the network (the first parameters that differ are named).
        """
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise BundleError(f"this is not a CLEFT checkpoint of format {FORMAT}")
        stored, text = state["text_backbone"], self.network.text_encoder
        if stored["fingerprint"] != text.fingerprint:
            raise BundleError(
                f"the checkpoint was trained on the language model {stored['source']} "
                f"(fingerprint {stored['fingerprint'][:16]}), this network has {text.source} ({text.fingerprint[:16]})"
            )
        weights, parameters = state["weights"], dict(self._trainable())
        differing = [
            name
            for name in sorted(weights.keys() | parameters.keys())
            if name not in weights or name not in parameters or weights[name].shape != parameters[name].shape
        ]
        if differing:
            raise BundleError(
                f"the checkpoint does not fit the network: {len(differing)} parameters are missing, unexpected or of "
                f"another shape, the first are {', '.join(differing[:3])}; is a net_*.json overlay missing?"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])

    def _trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]


def load_trained(network: CLEFT, path: str | Path) -> CLEFT:
    """Load ``cleft.pt`` into a network and return it.

    Raises:
        BundleError: where the file does not exist or does not belong to this network.
    """
    state = files.load(path, MADE_BY)
    try:
        TrainedState(network).load_state_dict(state)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return network
