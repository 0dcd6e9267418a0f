"""Handlers of MONAI's engines: metrics, progress, pictures, predictions, MLflow."""

from cleft_bundle.handlers.checkpoints import BestCheckpoint, TrainingCheckpoint
from cleft_bundle.handlers.label_efficiency import LabelEfficiency
from cleft_bundle.handlers.label_points import point_name
from cleft_bundle.handlers.plots import EvaluationPlots, LossCurve
from cleft_bundle.handlers.progress import ProgressHandler
from cleft_bundle.handlers.rank_allocation import RankAllocation
from cleft_bundle.handlers.record import KeepRecord, RunRecord
from cleft_bundle.handlers.shared_pictures import SharedPictures
from cleft_bundle.handlers.step_profile import StepProfile
from cleft_bundle.handlers.step_values import Losses, loss_and_scale
from cleft_bundle.handlers.tracking import (
    MetricTracker,
    RunTracker,
    evaluation_tracker,
    run_parameters,
    training_tracker,
    unique_run_name,
)
from cleft_bundle.handlers.updates import UpdateLrSchedule, count_updates, ends_group
from cleft_bundle.handlers.validation import PeriodicValidation
from cleft_bundle.handlers.when_to_save import WhenToSave
from cleft_bundle.handlers.zero_shot_metrics import ZeroShotMetrics

__all__ = [
    "BestCheckpoint",
    "EvaluationPlots",
    "KeepRecord",
    "LabelEfficiency",
    "LossCurve",
    "Losses",
    "MetricTracker",
    "PeriodicValidation",
    "ProgressHandler",
    "RankAllocation",
    "RunRecord",
    "RunTracker",
    "SharedPictures",
    "StepProfile",
    "TrainingCheckpoint",
    "UpdateLrSchedule",
    "WhenToSave",
    "ZeroShotMetrics",
    "count_updates",
    "ends_group",
    "evaluation_tracker",
    "loss_and_scale",
    "point_name",
    "run_parameters",
    "training_tracker",
    "unique_run_name",
]
