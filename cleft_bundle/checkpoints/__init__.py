"""Saving and loading: the trained part of a network, an interrupted training, the classifier and its exports."""

from cleft_bundle.checkpoints.classifier_file import load_classifier, load_deployed, open_classifier
from cleft_bundle.checkpoints.finetuned import FinetunedState, load_finetuned
from cleft_bundle.checkpoints.image_tower import file_of, image_tower, image_towers, true_source
from cleft_bundle.checkpoints.official import import_official
from cleft_bundle.checkpoints.patient_roles import ROLES
from cleft_bundle.checkpoints.run_identity import RunIdentity, run_of, run_of_file
from cleft_bundle.checkpoints.trained_on import (
    TrainedOn,
    check_not_trained_on,
    check_pictures,
    picture_roles,
    provenance_of,
    roles,
    training_images,
    unknown_roles,
)
from cleft_bundle.checkpoints.trained_state import TrainedState, load_image_tower, load_trained
from cleft_bundle.files import save, sha256

__all__ = [
    "ROLES",
    "FinetunedState",
    "RunIdentity",
    "TrainedOn",
    "TrainedState",
    "check_not_trained_on",
    "check_pictures",
    "file_of",
    "image_tower",
    "image_towers",
    "import_official",
    "load_classifier",
    "load_deployed",
    "load_finetuned",
    "load_image_tower",
    "load_trained",
    "open_classifier",
    "picture_roles",
    "provenance_of",
    "roles",
    "run_of",
    "run_of_file",
    "save",
    "sha256",
    "training_images",
    "true_source",
    "unknown_roles",
]
