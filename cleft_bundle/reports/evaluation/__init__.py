"""The report of an evaluation: figures with intervals as JSON, and a page of them for people."""

from cleft_bundle.reports.evaluation.about import read_about
from cleft_bundle.reports.evaluation.case_pictures import CasePictures
from cleft_bundle.reports.evaluation.comparison import Comparison
from cleft_bundle.reports.evaluation.estimates import Resampling
from cleft_bundle.reports.evaluation.operating import Operating
from cleft_bundle.reports.evaluation.report import Extras, Settings, write_report
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.evaluation.zero_shot import EvaluationReport

__all__ = [
    "CasePictures",
    "Comparison",
    "EvaluationReport",
    "Extras",
    "Operating",
    "Resampling",
    "ScoredImages",
    "Settings",
    "read_about",
    "write_report",
]
