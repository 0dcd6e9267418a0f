"""What an evaluation leaves: figures with intervals as JSON, and a page of them for people."""

from cleft_bundle.evaluation.figures import Resampling, to_predictions
from cleft_bundle.evaluation.report import EvaluationReport

__all__ = ["EvaluationReport", "Resampling", "to_predictions"]
