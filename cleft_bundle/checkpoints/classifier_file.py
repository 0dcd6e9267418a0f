"""The deployable classifier as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cleft_bundle import files
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageEncoder, TrainableClassifier, ZeroShotClassifier
from cleft_bundle.networks.classifier import decode_settings

MADE_BY = "training writes it at its end, or pass --model_path"


class DeployableState:
    """What ``model.pt`` would hold of a classifier that is being trained.

    Args:
        network: the classifier.
        trained_on: the split and the patients that the classifier is to name.
        identity: the run that the classifier is to name.
    """

    def __init__(self, network: TrainableClassifier, trained_on: TrainedOn, identity: RunIdentity) -> None:
        self.network = network
        self.trained_on = trained_on
        self.identity = identity

    def state_dict(self) -> dict[str, Any]:
        """The bare state dict that :func:`load_classifier` reads."""
        classifier = self.network.deployable()
        classifier.provenance = {"run": self.identity.state_dict(), "trained_on": self.trained_on.state_dict()}
        return classifier.state_dict()


def load_classifier(path: str | Path, identity: RunIdentity | None = None) -> ZeroShotClassifier:
    """Build the classifier that ``model.pt`` describes and load its weights, strictly.

    Args:
        path: a bare state dict of :class:`cleft_bundle.networks.ZeroShotClassifier`.
        identity: the run that must have written it; None takes any.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        BundleError: where the file does not exist, is no such state dict, is incomplete, or is another run's.
    """
    state = files.load(path, MADE_BY)
    if not isinstance(state, dict) or "_extra_state" not in state:
        raise BundleError(f"{path} is not a classifier of this bundle: it holds no settings")
    settings = decode_settings(state["_extra_state"])
    if "operating_point" not in settings:
        raise BundleError(f"{path} was written before version 0.4.0, without calibration: {MADE_BY}")
    if identity is not None:
        identity.check_own(settings.get("provenance"), path)
    classifier = ZeroShotClassifier(**{**settings, "image_encoder": ImageEncoder(**settings["image_encoder"])})
    try:
        classifier.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise BundleError(f"{path} does not fit its own settings: {' '.join(str(error).split())[:200]}") from error
    return classifier.eval()
