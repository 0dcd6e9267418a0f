"""Scoring images with a classifier, and what is written beside the scores."""

from cleft_bundle.inference.scorer import Scorer, Scores

__all__ = ["Scorer", "Scores"]
