"""The deployable classifier as a file, in whichever form."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

from cleft_bundle import files
from cleft_bundle.checkpoints.finetuned import build_finetuned, is_finetuned
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks import (
    DeployedClassifier,
    ExportedClassifier,
    OnnxClassifier,
    ProgramClassifier,
    TorchScriptClassifier,
    TrainableClassifier,
    ZeroShotClassifier,
    build_image_encoder,
)
from cleft_bundle.networks.classifiers.typicality import Typicality
from cleft_bundle.networks.classifiers.zero_shot import decode_settings

logger = logging.getLogger(__name__)

MADE_BY = "training writes it at its end, or pass --model_path"


class DeployableState:
    """Content of ``model.pt`` for a classifier that is being trained.

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
    if is_finetuned(state):
        raise BundleError(f"{path} is a fine-tuned classifier, and one with class weights is needed here: a model.pt")
    return _build(state, path, identity)


def load_deployed(path: str | Path) -> DeployedClassifier:
    """Build what a ``model.pt`` or a ``finetuned.pt`` describes; the log says where it is not calibrated.

    Args:
        path: the file.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        BundleError: as :func:`load_classifier`.
    """
    state = files.load(path, MADE_BY)
    classifier = build_finetuned(state, path) if is_finetuned(state) else _build(state, path)
    _say_whether_calibrated(classifier, path)
    return classifier


def open_classifier(path: str | Path) -> DeployedClassifier | ExportedClassifier:
    """Open a classifier in any form; which one it is, its content says.

    Args:
        path: a ``model.pt``, a ``finetuned.pt``, or a file that :func:`cleft_bundle.packaging.export_classifier`
            wrote.

    Returns:
        the classifier in evaluation mode, on the CPU.

    Raises:
        BundleError: where the file does not exist, is none of these, is incomplete, or does not say what its classes
            and its preprocessing are.
    """
    form = _exported_form(Path(path))
    if form is None:
        return load_deployed(path)
    classifier = form(path).eval()
    _say_whether_calibrated(classifier, path)
    return classifier


def _exported_form(path: Path) -> type[TorchScriptClassifier | ProgramClassifier | OnnxClassifier] | None:
    if not path.is_file():
        return None
    if not zipfile.is_zipfile(path):
        return OnnxClassifier if path.suffix.lower() == ".onnx" else None
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in parts:
        return TorchScriptClassifier
    return ProgramClassifier if "archive_format" in parts else None


def _say_whether_calibrated(classifier: DeployedClassifier | ExportedClassifier, path: str | Path) -> None:
    if classifier.calibration is None:
        logger.warning("%s is not calibrated: its scores are no probabilities to rely on", path)


def _build(state: Any, path: str | Path, identity: RunIdentity | None = None) -> ZeroShotClassifier:
    if not isinstance(state, dict) or "_extra_state" not in state:
        raise BundleError(f"{path} is not a classifier of this bundle: it holds no settings")
    settings = decode_settings(state["_extra_state"])
    if "operating_point" not in settings:
        raise BundleError(f"{path} was written before version 0.4.0, without calibration: {MADE_BY}")
    if identity is not None:
        identity.check_own(settings.get("provenance"), path)
    classifier = ZeroShotClassifier(**{**settings, "image_encoder": build_image_encoder(settings["image_encoder"])})
    classifier.typicality = Typicality.of(state, "typicality.")
    try:
        classifier.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise BundleError(f"{path} does not fit its own settings: {one_line(error)}") from error
    return classifier.eval()
