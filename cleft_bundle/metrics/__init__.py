"""Metrics of zero-shot classification and retrieval, on NumPy arrays."""

from cleft_bundle.metrics.classification import (
    METRICS,
    ClassificationMetrics,
    binary_confusion,
    classification_metrics,
    confusion_matrix,
)
from cleft_bundle.metrics.delong import DelongTest, delong, delong_interval, delong_test
from cleft_bundle.metrics.intervals import MIN_SUPPORT, Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, bootstrap, paired_bootstrap, resample
from cleft_bundle.metrics.retrieval import retrieval_metrics

__all__ = [
    "METRICS",
    "MIN_SUPPORT",
    "ClassificationMetrics",
    "DelongTest",
    "Difference",
    "Interval",
    "Predictions",
    "binary_confusion",
    "bootstrap",
    "classification_metrics",
    "confusion_matrix",
    "delong",
    "delong_interval",
    "delong_test",
    "paired_bootstrap",
    "resample",
    "retrieval_metrics",
]
