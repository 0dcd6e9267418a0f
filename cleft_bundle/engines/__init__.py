"""What MONAI's engines need from us: batches, parameter groups, and the end of a run."""

from cleft_bundle.engines.finish import finish_evaluation, finish_training
from cleft_bundle.engines.optimizer import parameter_groups
from cleft_bundle.engines.prepare_batch import PrepareImageText

__all__ = ["PrepareImageText", "finish_evaluation", "finish_training", "parameter_groups"]
