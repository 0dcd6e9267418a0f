"""The parts of MONAI's engines that are ours: batches, steps, parameter groups, features, and the end of a run."""

from cleft_bundle.engines.assembly import training_engine, validation_engine
from cleft_bundle.engines.begin import (
    begin_evaluation,
    begin_label_efficiency,
    begin_prompt_tuning,
    check_evaluated_pictures,
    learnable_items,
    load_evaluated,
    load_towers,
    prompted,
)
from cleft_bundle.engines.classifier_builder import ClassifierBuilder
from cleft_bundle.engines.features import EmbeddedDataset
from cleft_bundle.engines.finetuning import finish_finetuning
from cleft_bundle.engines.finish import finish_evaluation, finish_training
from cleft_bundle.engines.label_training import finish_label_training, with_learnt_prompts
from cleft_bundle.engines.linear_head import LinearHead, choose_strength, fit_head, refit_head
from cleft_bundle.engines.linear_probe import LinearProbe, Probing, check_learnable
from cleft_bundle.engines.optimizer import adamw, parameter_groups, sgd
from cleft_bundle.engines.prepare_batch import PrepareImageText
from cleft_bundle.engines.prompt_tuning import tuning_context, tuning_items, tuning_prompts
from cleft_bundle.engines.schedule import epochs_for, planned_updates, short_warmup, validation_interval, warmup_cosine
from cleft_bundle.engines.strategy import distribute
from cleft_bundle.engines.training import run_evaluation, run_training
from cleft_bundle.engines.training_step import TrainingStep

__all__ = [
    "ClassifierBuilder",
    "EmbeddedDataset",
    "LinearHead",
    "LinearProbe",
    "PrepareImageText",
    "Probing",
    "TrainingStep",
    "adamw",
    "begin_evaluation",
    "begin_label_efficiency",
    "begin_prompt_tuning",
    "check_evaluated_pictures",
    "check_learnable",
    "choose_strength",
    "distribute",
    "epochs_for",
    "finish_evaluation",
    "finish_finetuning",
    "finish_label_training",
    "finish_training",
    "fit_head",
    "learnable_items",
    "load_evaluated",
    "load_towers",
    "parameter_groups",
    "planned_updates",
    "prompted",
    "refit_head",
    "run_evaluation",
    "run_training",
    "sgd",
    "short_warmup",
    "training_engine",
    "tuning_context",
    "tuning_items",
    "tuning_prompts",
    "validation_engine",
    "validation_interval",
    "warmup_cosine",
    "with_learnt_prompts",
]
