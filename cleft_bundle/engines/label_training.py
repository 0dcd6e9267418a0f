"""The end of a training on a reader's labels: the classifier that it proposes, next to the one that is served."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleft_bundle.checkpoints import RunIdentity, TrainedOn, load_trained, save
from cleft_bundle.data.item import Item
from cleft_bundle.data.usable_labels import label_matrix, usable_rows
from cleft_bundle.engines.classifier_builder import ClassifierBuilder, chosen_by, learn_typicality
from cleft_bundle.engines.features import embed_images
from cleft_bundle.engines.linear_head import LinearHead
from cleft_bundle.engines.linear_probe import as_predictions
from cleft_bundle.files import save_text
from cleft_bundle.handlers import RunTracker
from cleft_bundle.metrics import COVERAGE, Screening, classification_metrics, conformal_limits
from cleft_bundle.networks import CLEFT, ZeroShotClassifier, probabilities
from cleft_bundle.networks.classifiers.typicality import Typicality

logger = logging.getLogger(__name__)

#: So many validation images with a usable label calibrate a classifier and set its thresholds; fewer leave it as it is.
CALIBRATION_IMAGES = 30
METRICS = ("auroc", "accuracy", "balanced_accuracy", "brier")


def with_learnt_prompts(
    network: CLEFT,
    best_checkpoint: str,
    classifier_builder: ClassifierBuilder,
    served: ZeroShotClassifier,
    identity: RunIdentity,
) -> ZeroShotClassifier:
    """Build the classifier of the best learnt prompts, under the calibration of the one that is served.

    Args:
        network: the dual encoder; it gets the best weights.
        best_checkpoint: file that :class:`cleft_bundle.handlers.BestCheckpoint` wrote.
        classifier_builder: holds the class names and the tokenizer.
        served: whose calibration is kept.
        identity: the run, which must have written the best checkpoint itself.

    Raises:
        BundleError: where the best checkpoint is another run's.
    """
    classifier = classifier_builder.build(load_trained(network, best_checkpoint, identity))
    classifier.calibrate(float(served.temperature), served.bias.tolist(), {}, **_chosen_by(served))
    return classifier.to(network.logit_scale.device)


def finish_label_training(
    candidate: ZeroShotClassifier,
    served: ZeroShotClassifier,
    splits: Mapping[str, Sequence[Item]],
    loading: Mapping[str, Any],
    trained_on: TrainedOn,
    trained_path: str,
    tracker: RunTracker,
    identity: RunIdentity,
    artifacts: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure a new classifier and the served one on the same validation patients, and write the new one.

    From :data:`CALIBRATION_IMAGES` usable validation images on, calibration and thresholds are chosen on them, by the
    rules that the served classifier's were chosen by. With fewer the calibration stays, and there are no thresholds.
    What is known of typical images stays where the image tower does, and is learnt anew where it was trained.

    Args:
        candidate: the new classifier, in evaluation mode.
        served: the one that it may replace, with the same classes.
        splits: ``train`` and ``validation``, items of the labelled images.
        loading: ``transform``, ``device`` and other arguments of :func:`cleft_bundle.engines.features.embed_images`.
        trained_on: the split and the patients of this training and of the served classifier.
        trained_path: receives the new classifier, as ``model.pt``; a JSON file beside it, with the suffix
            ``.json``, what is returned.
        tracker: its open MLflow run receives the figures, and is closed.
        identity: the run, which the new classifier names.
        artifacts: files for the run.

    Returns:
        ``run``, the identity's id, ``train_images`` and ``validation_images`` (those with a usable label),
        ``calibrated`` (whether it was done anew), and ``before`` and ``after``, figures of the two classifiers by the
        names of :func:`classification_metrics`, those without a definition left out.
    """
    validation = splits["validation"]
    device = loading["device"]
    labels = label_matrix(validation)
    images = {name: int(usable_rows(label_matrix(items), candidate.task).sum()) for name, items in splits.items()}
    networks = {"before": served.to(device), "after": candidate.to(device)}
    rows = {
        when: embed_images(validation, encode=network.image_encoder, **loading) for when, network in networks.items()
    }
    heads = {when: LinearHead.of(network) for when, network in networks.items()}
    calibrated = images["validation"] >= CALIBRATION_IMAGES
    if calibrated:
        logits = heads["after"].logits(rows["after"]).numpy()
        screening = Screening(**_chosen_by(served))
        patients = [item["patient_id"] for item in validation]
        chosen = screening.choose(logits, labels, candidate.class_names, candidate.task, patients)
        scale = chosen.calibration
        factor, offset = scale.temperature, torch.tensor(scale.bias, dtype=torch.float64)
        candidate.set_head(heads["after"].weights / factor, heads["after"].bias / factor + offset)
        within = replace(scale, low=scale.low / factor, high=scale.high / factor)  # the head's own temperature is 1
        sets = conformal_limits(scale(logits), labels, candidate.class_names)
        candidate.operating_point = {
            "thresholds": dict(chosen.thresholds),
            **chosen_by(screening, within),
            "conformal": {"coverage": COVERAGE, "limits": sets},
        }
        heads["after"] = LinearHead.of(candidate)
    else:
        candidate.operating_point = {"thresholds": {}, **_chosen_by(served)}
        logger.warning("%d validation images are too few to calibrate on (%d are needed): the calibration stays, and "
                       "there are no thresholds", images["validation"], CALIBRATION_IMAGES)  # fmt: skip
    estimates = {}
    for when, head in heads.items():
        scores = probabilities(head.logits(rows[when]), candidate.task).numpy()
        predictions = as_predictions(scores, validation, candidate.class_names, candidate.task)
        found = classification_metrics(predictions, metrics=METRICS)
        estimates[when] = {name: value for name, value in found.items() if np.isfinite(value)}
    if rows["before"].shape != rows["after"].shape or not torch.allclose(rows["before"], rows["after"], atol=1e-4):
        patients = [item["patient_id"] for item in validation]  # another tower: what was known was of the other
        learn_typicality(candidate, rows["after"].numpy(), labels, patients)
    elif served.typicality is not None:
        candidate.typicality = Typicality.of(served.typicality.state_dict())
    remembered = trained_on.calibrated() if calibrated else trained_on
    candidate.provenance = {"run": identity.state_dict(), "trained_on": remembered.state_dict()}
    outcome = {
        "run": identity.id,
        "train_images": images["train"],
        "validation_images": images["validation"],
        "calibrated": calibrated,
        **estimates,
    }
    with identity.writing(last=True):
        save(candidate.cpu().state_dict(), trained_path)
        save_text(json.dumps(outcome, indent=1), Path(trained_path).with_suffix(".json"))
    flat = {f"{name}_{when}": value for when, values in estimates.items() for name, value in values.items()}
    tracker.finish(artifacts, flat)
    lines = [f"training on labels is done ({images['train']} images, {images['validation']} for validation):"]
    lines += [f"  {name:<34} {value:.3f}" for name, value in flat.items()]
    logger.info("\n".join([*lines, f"  classifier                         {trained_path}"]))
    return outcome


def _chosen_by(classifier: ZeroShotClassifier) -> dict[str, Any]:
    """The rules of :class:`Screening` by which a classifier was calibrated; its defaults where it was not."""
    known = {field.name for field in fields(Screening)}
    return {key: value for key, value in classifier.operating_point.items() if key in known}
