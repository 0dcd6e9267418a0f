"""What MONAI's engines need from us: batches, steps, parameter groups, features, and the end of a run."""

from cleft_bundle.engines.classifier_builder import ClassifierBuilder
from cleft_bundle.engines.features import EmbeddedDataset
from cleft_bundle.engines.finetuning import finish_finetuning
from cleft_bundle.engines.finish import finish_evaluation, finish_training
from cleft_bundle.engines.label_training import finish_label_training, with_learnt_prompts
from cleft_bundle.engines.linear_head import LinearHead, choose_strength, fit_head, refit_head
from cleft_bundle.engines.linear_probe import LinearProbe, Probing, check_learnable
from cleft_bundle.engines.optimizer import parameter_groups
from cleft_bundle.engines.prepare_batch import PrepareImageText
from cleft_bundle.engines.schedule import planned_updates, warmup_cosine
from cleft_bundle.engines.training import run_training
from cleft_bundle.engines.training_step import TrainingStep

__all__ = [
    "ClassifierBuilder",
    "EmbeddedDataset",
    "LinearHead",
    "LinearProbe",
    "PrepareImageText",
    "Probing",
    "TrainingStep",
    "check_learnable",
    "choose_strength",
    "finish_evaluation",
    "finish_finetuning",
    "finish_label_training",
    "finish_training",
    "fit_head",
    "parameter_groups",
    "planned_updates",
    "refit_head",
    "run_training",
    "warmup_cosine",
    "with_learnt_prompts",
]
