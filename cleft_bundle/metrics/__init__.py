"""Metrics of zero-shot classification and retrieval, on NumPy arrays."""

from cleft_bundle.metrics.classification import (
    METRICS,
    ClassificationMetrics,
    binary_confusion,
    classification_metrics,
    confusion_matrix,
)
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, Interval, bootstrap, paired_bootstrap
from cleft_bundle.metrics.retrieval import retrieval_metrics

__all__ = [
    "METRICS",
    "ClassificationMetrics",
    "Difference",
    "Interval",
    "Predictions",
    "binary_confusion",
    "bootstrap",
    "classification_metrics",
    "confusion_matrix",
    "paired_bootstrap",
    "retrieval_metrics",
]
