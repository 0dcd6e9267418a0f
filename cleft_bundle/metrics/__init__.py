"""Metrics of zero-shot classification and retrieval, on NumPy arrays."""

from cleft_bundle.metrics.retrieval import retrieval_metrics
from cleft_bundle.metrics.zero_shot import classification_metrics

__all__ = ["classification_metrics", "retrieval_metrics"]
