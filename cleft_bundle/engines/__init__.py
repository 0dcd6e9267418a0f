"""What MONAI's engines need from us: batches, steps, parameter groups, features, and the end of a run."""

from cleft_bundle.engines.classifier_builder import ClassifierBuilder
from cleft_bundle.engines.features import EmbeddedDataset
from cleft_bundle.engines.finetuning import finish_finetuning
from cleft_bundle.engines.finish import finish_evaluation, finish_training
from cleft_bundle.engines.linear_probe import LinearProbe, Probing, check_learnable
from cleft_bundle.engines.optimizer import parameter_groups
from cleft_bundle.engines.prepare_batch import PrepareImageText
from cleft_bundle.engines.training_step import TrainingStep

__all__ = [
    "ClassifierBuilder",
    "EmbeddedDataset",
    "LinearProbe",
    "PrepareImageText",
    "Probing",
    "TrainingStep",
    "check_learnable",
    "finish_evaluation",
    "finish_finetuning",
    "finish_training",
    "parameter_groups",
]
