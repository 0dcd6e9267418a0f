"""What an evaluation leaves: figures with intervals as JSON, and a page of them for people."""

from cleft_bundle.evaluation.cases import CasePictures
from cleft_bundle.evaluation.comparison import Comparison
from cleft_bundle.evaluation.figures import Resampling, to_predictions
from cleft_bundle.evaluation.operating import Operating
from cleft_bundle.evaluation.report import EvaluationReport

__all__ = ["CasePictures", "Comparison", "EvaluationReport", "Operating", "Resampling", "to_predictions"]
