"""Metrics of zero-shot classification and retrieval, on NumPy arrays."""

from cleft_bundle.metrics.active_learning import STRATEGIES, rank_unlabelled
from cleft_bundle.metrics.auroc_variance import DelongTest, delong, delong_interval, delong_test
from cleft_bundle.metrics.calibration import (
    Calibration,
    Reliability,
    calibrated_columns,
    fit_bias,
    fit_temperature,
    reliability,
)
from cleft_bundle.metrics.classification import (
    METRICS,
    ClassificationMetrics,
    binary_confusion,
    classification_metrics,
    confusion_matrix,
)
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Interval
from cleft_bundle.metrics.operating_points import OperatingPoint, apply_thresholds, choose_thresholds
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, bootstrap, paired_bootstrap, resample
from cleft_bundle.metrics.retrieval import ImageToText, retrieval_metrics, retrieval_ranks
from cleft_bundle.metrics.screening import Chosen, Screening
from cleft_bundle.metrics.spread import Spread, prompt_spread
from cleft_bundle.metrics.subgroups import Gap, Subgroups, subgroup_metrics

__all__ = [
    "METRICS",
    "MIN_SUPPORT",
    "STRATEGIES",
    "Calibration",
    "Chosen",
    "ClassificationMetrics",
    "DelongTest",
    "Difference",
    "Gap",
    "ImageToText",
    "Interval",
    "OperatingPoint",
    "Predictions",
    "Reliability",
    "Screening",
    "Spread",
    "Subgroups",
    "apply_thresholds",
    "binary_confusion",
    "bootstrap",
    "calibrated_columns",
    "choose_thresholds",
    "classification_metrics",
    "confusion_matrix",
    "delong",
    "delong_interval",
    "delong_test",
    "fit_bias",
    "fit_temperature",
    "paired_bootstrap",
    "prompt_spread",
    "rank_unlabelled",
    "reliability",
    "resample",
    "retrieval_metrics",
    "retrieval_ranks",
    "subgroup_metrics",
]
