"""The parameters that training changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cleft_bundle import files
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.checkpoints.trained_on import MADE_BY, TrainedOn
from cleft_bundle.distributed import fill, first_does
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import CLEFT, ImageEncoder, TextEncoder
from cleft_bundle.networks.weight_names import own_name, renamed

FORMAT = 2


class TrainedState:
    """The trained part of a network.

    The state holds what the network adds to its backbones (image tower, adapters, projections, logit scale, learnt
    prompt) and the fingerprints of the frozen ones, never their weights.

    Args:
        network: the dual encoder.
        trained_on: the split and the patients that the state is to name; None where it names none.
        identity: the run that the state is to name; None where it names none.
    """

    def __init__(
        self, network: CLEFT, trained_on: TrainedOn | None = None, identity: RunIdentity | None = None
    ) -> None:
        self.network = network
        self.trained_on = trained_on
        self.identity = identity

    def state_dict(self) -> dict[str, Any]:
        """Collect what was trained, divided where the network is; see :func:`cleft_bundle.distributed.at_first`.

        Returns:
            ``format``, ``weights`` (name, see :mod:`cleft_bundle.networks.weight_names`, to tensor),
            and ``text_backbone`` and ``image_backbone``: ``source`` and
            ``fingerprint`` of what is frozen, whose fingerprint is None where nothing is; ``text_pooling``; and
            ``trained_on`` (:meth:`TrainedOn.state_dict`) and ``run`` (:meth:`RunIdentity.state_dict`) where these are
            known.
        """
        return {
            "format": FORMAT,
            "weights": {own_name(n): t.detach().clone() for n, t in self._tensors().items()},
            "text_backbone": _described(self.network.text_encoder),
            "image_backbone": _described(self.network.image_encoder),
            "text_pooling": self.network.text_encoder.pooling,
            **({"trained_on": self.trained_on.state_dict()} if self.trained_on else {}),
            **({"run": self.identity.state_dict()} if self.identity else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put trained weights back into the network.

        Raises:
            BundleError: where the state has another format, was trained on another frozen backbone (both fingerprints
                are named) or with another text pooling, or does not fit the network (the first parameters that differ
                are named).
        """
        _check_format(state)
        _check_backbone(state["text_backbone"], self.network.text_encoder, "language model")
        _check_backbone(state["image_backbone"], self.network.image_encoder, "image backbone")
        _check_text_pooling(state.get("text_pooling", "end"), self.network.text_encoder.pooling)
        tensors = self._tensors()
        _copy(renamed(state["weights"], tensors), tensors)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Trained parameters, and the running statistics of batch norms in projections and a trained image tower."""
        statistics = {
            name: value for name, value in self.network.state_dict().items() if "_encoder.projection." in name
        }
        images = self.network.image_encoder.trained_statistics()
        statistics |= {f"image_encoder.{name}": value for name, value in images.items()}
        return {**statistics, **self.network.trained_parameters()}


def load_trained(network: CLEFT, path: str | Path, identity: RunIdentity | None = None) -> CLEFT:
    """Load ``cleft.pt`` into a network and return it.

    Args:
        network: receives the weights.
        path: the file.
        identity: the run that must have written it; None takes any.

    Raises:
        BundleError: where the file does not exist, does not belong to this network, or is another run's.
    """
    state = first_does(lambda: files.load(path, MADE_BY))
    if identity is not None:
        identity.check_own(state, path)
    try:
        TrainedState(network).load_state_dict(state)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return network


def load_image_tower(encoder: ImageEncoder, path: str | Path) -> ImageEncoder:
    """Load the image tower of ``cleft.pt`` alone, without its language model, and return it.

    Raises:
        BundleError: where the file does not exist or does not belong to this tower.
    """
    state = files.load(path, MADE_BY)
    prefix = "image_encoder."
    try:
        _check_format(state)
        _check_backbone(state["image_backbone"], encoder, "image backbone")
        tensors = {f"projection.{name}": tensor for name, tensor in encoder.projection.state_dict().items()}
        tensors |= encoder.trained_statistics()
        tensors |= {name: p for name, p in encoder.named_parameters() if p.requires_grad or encoder.peft.keeps(name)}
        weights = {n.removeprefix(prefix): t for n, t in state["weights"].items() if n.startswith(prefix)}
        _copy(renamed(weights, tensors), tensors)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return encoder


def _check_format(state: Any) -> None:
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BundleError(f"this is not a CLEFT checkpoint of format {FORMAT}")


@torch.no_grad()
def _copy(weights: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Put weights into the tensors of the same names, and refuse gaps, remainders and other shapes."""
    differing = [
        name
        for name in sorted(weights.keys() | tensors.keys())
        if name not in weights or name not in tensors or weights[name].shape != tensors[name].shape
    ]
    if differing:
        raise BundleError(
            f"the checkpoint does not fit the network: {len(differing)} parameters are missing, unexpected or of "
            f"another shape, the first are {', '.join(differing[:3])}; is an overlay of its training missing?"
        )
    for name, tensor in tensors.items():
        fill(tensor, weights[name])


def _described(tower: ImageEncoder | TextEncoder) -> dict[str, str | None]:
    return {"source": tower.source, "fingerprint": tower.fingerprint}


def _check_backbone(stored: dict[str, str | None], tower: ImageEncoder | TextEncoder, kind: str) -> None:
    """Refuse a frozen backbone that is not the one which the weights were trained with."""
    if stored["fingerprint"] not in (tower.fingerprint, tower.former_fingerprint):
        raise BundleError(
            f"the checkpoint was trained on the {kind} {stored['source']} "
            f"(fingerprint {str(stored['fingerprint'])[:16]}), this network has {tower.source} "
            f"({str(tower.fingerprint)[:16]})"
        )


def _check_text_pooling(stored: str, own: str) -> None:
    """Refuse another reading of captions than that of the training; up to 0.9.0 all were read at their end."""
    if stored != own:
        raise BundleError(f"the checkpoint was trained with text_pooling {stored}, this network has {own}")
