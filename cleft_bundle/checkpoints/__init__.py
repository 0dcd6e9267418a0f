"""What is saved and loaded: the trained part of a network, and the deployable classifier."""

from cleft_bundle.checkpoints.classifier_file import load_classifier
from cleft_bundle.checkpoints.files import save
from cleft_bundle.checkpoints.trained_state import TrainedState, load_trained

__all__ = ["TrainedState", "load_classifier", "load_trained", "save"]
