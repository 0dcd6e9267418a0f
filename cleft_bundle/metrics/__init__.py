"""Metrics of zero-shot classification and retrieval, on NumPy arrays."""

from cleft_bundle.metrics.active_learning import STRATEGIES, rank_unlabelled
from cleft_bundle.metrics.auroc_variance import (
    DelongTest,
    delong,
    delong_comparison,
    delong_interval,
    delong_intervals,
    delong_test,
)
from cleft_bundle.metrics.calibration import Reliability, calibrated_columns, reliability
from cleft_bundle.metrics.classification import (
    METRICS,
    ClassificationMetrics,
    binary_confusion,
    classification_metrics,
    confusion_matrix,
)
from cleft_bundle.metrics.conformal import COVERAGE, conformal_limits, conformal_sets, set_coverage
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Interval, holm, p_text
from cleft_bundle.metrics.operating_points import OperatingPoint, apply_thresholds
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.recalibration import CalibrationLine, DecisionCurve, calibration_line, decision_curve
from cleft_bundle.metrics.resampling import Difference, bootstrap, paired_bootstrap, resample
from cleft_bundle.metrics.retrieval import ImageToText, retrieval_chance, retrieval_metrics, retrieval_ranks
from cleft_bundle.metrics.screening import Chosen, Screening, calibration_of
from cleft_bundle.metrics.shift import EmbeddingShift, Shift, embedding_shift, shift
from cleft_bundle.metrics.spread import Spread, prompt_spread
from cleft_bundle.metrics.subgroups import Gap, Subgroups, subgroup_metrics
from cleft_bundle.metrics.temperature import Calibration, fit_bias, fit_temperature
from cleft_bundle.metrics.thresholds import choose_thresholds
from cleft_bundle.metrics.units import by_unit

__all__ = [
    "COVERAGE",
    "METRICS",
    "MIN_SUPPORT",
    "STRATEGIES",
    "Calibration",
    "CalibrationLine",
    "Chosen",
    "ClassificationMetrics",
    "DecisionCurve",
    "DelongTest",
    "Difference",
    "EmbeddingShift",
    "Gap",
    "ImageToText",
    "Interval",
    "OperatingPoint",
    "Predictions",
    "Reliability",
    "Screening",
    "Shift",
    "Spread",
    "Subgroups",
    "apply_thresholds",
    "binary_confusion",
    "bootstrap",
    "by_unit",
    "calibrated_columns",
    "calibration_line",
    "calibration_of",
    "choose_thresholds",
    "classification_metrics",
    "conformal_limits",
    "conformal_sets",
    "confusion_matrix",
    "decision_curve",
    "delong",
    "delong_comparison",
    "delong_interval",
    "delong_intervals",
    "delong_test",
    "embedding_shift",
    "fit_bias",
    "fit_temperature",
    "holm",
    "p_text",
    "paired_bootstrap",
    "prompt_spread",
    "rank_unlabelled",
    "reliability",
    "resample",
    "retrieval_chance",
    "retrieval_metrics",
    "retrieval_ranks",
    "set_coverage",
    "shift",
    "subgroup_metrics",
]
