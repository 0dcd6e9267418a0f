"""From a trained network to the deployable classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.checkpoints import save
from cleft_bundle.checkpoints.text_bank import VOCABULARY, space_of_state
from cleft_bundle.distributed import at_first, rank
from cleft_bundle.engines.typicality import fit_typicality
from cleft_bundle.engines.vocabulary import write_vocabulary
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.metrics import COVERAGE, Calibration, Screening, conformal_limits
from cleft_bundle.networks import CLEFT, DeployedClassifier, ZeroShotClassifier

logger = logging.getLogger(__name__)


class ClassifierBuilder:
    """Build what ``model.pt`` holds.

    Args:
        inferer: holds the class prompts.
        preprocessing: settings of the deterministic transforms, see :class:`ZeroShotClassifier`.
        screening: how calibration and thresholds are chosen on validation images.
        vocabulary: write ``vocabulary.safetensors`` beside it, see :mod:`cleft_bundle.engines.vocabulary`.
    """

    def __init__(
        self, inferer: ZeroShotInferer, preprocessing: Mapping[str, Any], screening: Screening, vocabulary: bool = False
    ) -> None:
        self.vocabulary = vocabulary
        self.inferer = inferer
        self.preprocessing = preprocessing
        self.screening = screening

    def build(self, network: CLEFT, validation: Mapping[str, Any] | None = None) -> ZeroShotClassifier:
        """Build the classifier, on the device of the network and sharing its image tower.

        Args:
            network: the trained network.
            validation: ``logits`` and ``label`` [N, K] of validation images, as
                :class:`cleft_bundle.handlers.ZeroShotMetrics` leaves them, and ``patients`` [N] and ``embeddings``
                [N, D] where they are known; None: no calibration, no thresholds and no typicality. What the classifier
                keeps of the choice are the rules, and of a fitted temperature its 95 % interval and the number of
                images.
        """
        names, task = list(self.inferer.prompts), self.inferer.task
        weights = self.inferer.embed_prompts(network)
        classifier = ZeroShotClassifier.from_cleft(network, names, weights, task, self.preprocessing)
        if validation is not None:
            estimates = validation["logits"], validation["label"]
            calibrate(classifier, self.screening, *estimates, validation.get("patients"))
            learn_typicality(classifier, validation.get("embeddings"), estimates[1], validation.get("patients"))
        return classifier

    def write(
        self,
        network: CLEFT,
        path: str | Path,
        provenance: Mapping[str, Any],
        validation: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what :meth:`build` gives as ``model.pt``; of several processes all take part and the first one writes.

        Args:
            network: the trained network.
            path: receives the state dict.
            provenance: the run that trained the network and the patients by role, which the file names, see
                :func:`cleft_bundle.checkpoints.provenance_of`.
            validation: as for :meth:`build`.
        """
        classifier = self.build(network, validation)
        classifier.provenance = dict(provenance)
        content = at_first(classifier.state_dict())
        if rank() == 0:
            save(content, path)
            logger.info("classifier of %d classes: %s", len(self.inferer.prompts), path)
        if self.vocabulary:
            space = space_of_state(content) if rank() == 0 else ""
            write_vocabulary(network, self.inferer, space, Path(path).with_name(VOCABULARY))


def calibrate(
    classifier: DeployedClassifier,
    screening: Screening,
    logits: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[object] | None,
) -> None:
    """Choose calibration and thresholds on validation images, and let a classifier keep them.

    Args:
        classifier: keeps, beside what is chosen, by which rules, and of a fitted temperature its interval and the
            number of images; and the limits of :func:`cleft_bundle.metrics.conformal.conformal_limits`.
        screening: how they are chosen.
        logits: [N, K] before calibration.
        labels: [N, K] of 1, 0 and NaN.
        patients: [N], whose image each one is; None where that is unknown.
    """
    chosen = screening.choose(logits, labels, classifier.class_names, classifier.task, patients)
    scale = chosen.calibration
    limits = conformal_limits(scale(logits), labels, classifier.class_names)
    sets = {"conformal": {"coverage": COVERAGE, "limits": limits}}
    classifier.calibrate(scale.temperature, scale.bias, chosen.thresholds, **chosen_by(screening, scale), **sets)


def learn_typicality(
    classifier: DeployedClassifier,
    embeddings: np.ndarray | None,
    labels: np.ndarray,
    patients: Sequence[object] | None,
) -> None:
    """Let a classifier keep what its validation images look like, see :func:`fit_typicality`.

    Args:
        classifier: gets it, on its device; what it had goes.
        embeddings: [N, D] of validation images, as its head takes them; None where there are none.
        labels: [N, K] of 1, 0 and NaN.
        patients: [N], whose image each one is; None where that is unknown.
    """
    found = None if embeddings is None else fit_typicality(embeddings, labels, patients)
    classifier.typicality = None if found is None else found.to(classifier.bias.device)


def chosen_by(screening: Screening, scale: Calibration) -> dict[str, Any]:
    """Record of how a calibration and thresholds were chosen, for a classifier's file.

    Returns:
        the rules of the screening and, where a temperature was fitted, ``temperature_interval`` (its 95 % interval)
        and ``calibration_images`` (their number).
    """
    fit = {"temperature_interval": [scale.low, scale.high], "calibration_images": scale.n_images}
    return {**asdict(screening), **(fit if scale.n_images else {})}
