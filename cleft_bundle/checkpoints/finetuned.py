"""The fine-tuned classifier as a file: ``finetuned.pt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cleft_bundle import files
from cleft_bundle.checkpoints.patient_roles import Memory
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks import FinetunedClassifier, ImageClassifier, build_image_encoder
from cleft_bundle.networks.classifiers.typicality import Typicality

FORMAT = 1
_APART = ("run", "trained_on")  # of a provenance: a file has them beside it
MADE_BY = "fine-tuning (configs/finetune.json) writes it, or pass the path of another one"


class FinetunedState:
    """A classifier of images with what is needed to build it again, and nothing left out; adapters are merged.

    Args:
        network: the classifier.
        trained_on: the split and the patients that the state is to name.
        identity: the run that the state is to name; None where it names none.
        deployed: the network's deployable form, whose calibration, operating point and provenance the file is to
            hold; None while it is being trained.
    """

    def __init__(
        self,
        network: ImageClassifier,
        trained_on: TrainedOn,
        identity: RunIdentity | None = None,
        deployed: FinetunedClassifier | None = None,
    ) -> None:
        self.network = network
        self.deployed = deployed
        self.trained_on = trained_on
        self.identity = identity

    def state_dict(self) -> dict[str, Any]:
        """Collect the state.

        Returns:
            ``finetuned_format``, ``settings`` (JSON text of classes, task, preprocessing and architecture),
            ``weights`` (name to tensor), ``trained_on`` (:meth:`TrainedOn.state_dict`) and, where they are known,
            ``run`` (:meth:`RunIdentity.state_dict`) and ``deployment`` (JSON text of calibration, operating point and
            provenance; files before version 0.7.0 have none) and ``typicality`` (name to tensor, see
            :class:`cleft_bundle.networks.classifiers.typicality.Typicality`).
        """
        network = self.network.merged()
        return {
            "finetuned_format": FORMAT,
            "settings": json.dumps(network.settings, sort_keys=True),
            "weights": {name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
            "trained_on": self.trained_on.state_dict(),
            **({"run": self.identity.state_dict()} if self.identity else {}),
            **({"deployment": json.dumps(_deployment(self.deployed))} if self.deployed else {}),
            **({"typicality": _typicality(self.deployed)} if self.deployed and self.deployed.typicality else {}),
        }


def load_finetuned(path: str | Path, identity: RunIdentity | None = None) -> ImageClassifier:
    """Build the classifier that a file describes and load its weights, strictly.

    Args:
        path: the file.
        identity: the run that must have written it; None takes any.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        BundleError: where the file does not exist, is none of this kind, is incomplete, or is another run's.
    """
    return build_finetuned(files.load(path, MADE_BY), path, identity).network


def build_finetuned(state: Any, path: str | Path, identity: RunIdentity | None = None) -> FinetunedClassifier:
    """Build the deployable form of what a file holds.

    Args:
        state: content of the file.
        path: of the file, for messages.
        identity: as for :func:`load_finetuned`.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        BundleError: as :func:`load_finetuned`.
    """
    if not is_finetuned(state):
        raise BundleError(f"{path} is not a fine-tuned classifier of format {FORMAT}")
    if identity is not None:
        identity.check_own(state, path)
    settings = json.loads(state["settings"])
    network = ImageClassifier(**{**settings, "image_encoder": build_image_encoder(settings["image_encoder"])})
    try:
        network.load_state_dict(state["weights"], strict=True)
    except RuntimeError as error:
        raise BundleError(f"{path} does not fit its own settings: {one_line(error)}") from error
    provenance = {"run": dict(state.get("run", {})), "trained_on": Memory.recall(state["trained_on"]).state_dict()}
    if "deployment" not in state:
        return FinetunedClassifier(network, provenance=provenance).eval()
    stored = json.loads(state["deployment"])
    classifier = FinetunedClassifier(network, provenance=provenance | stored["provenance"])
    classifier.calibrate(**stored["calibration"], **stored["operating_point"])
    classifier.typicality = Typicality.of(state.get("typicality", {}))
    return classifier.eval()


def is_finetuned(state: Any) -> bool:
    """True for the content of a file of a fine-tuned classifier, in the format that is known here."""
    return isinstance(state, dict) and state.get("finetuned_format") == FORMAT


def _typicality(classifier: FinetunedClassifier) -> dict[str, torch.Tensor]:
    state = classifier.typicality.state_dict() if classifier.typicality else {}
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _deployment(classifier: FinetunedClassifier) -> dict[str, Any]:
    """What a file holds beside weights, settings, run and patients, as JSON-able values."""
    calibration = {"temperature": float(classifier.temperature), "bias": classifier.bias.tolist()}
    return {
        "calibration": calibration,
        "operating_point": classifier.operating_point,
        "provenance": {key: value for key, value in classifier.provenance.items() if key not in _APART},
    }
