"""Scoring images with a classifier, and what is written beside the scores."""

from cleft_bundle.inference.heat_map_writer import HeatMapWriter
from cleft_bundle.inference.heat_maps import HeatMaps
from cleft_bundle.inference.journal import PredictionJournal
from cleft_bundle.inference.prediction import Prediction, Predictor, predict
from cleft_bundle.inference.predictions import PredictionWriter, score_images
from cleft_bundle.inference.readable import ReadableInferer
from cleft_bundle.inference.scorer import Scorer, Scores
from cleft_bundle.inference.structured_reports import StructuredReportWriter

__all__ = [
    "HeatMapWriter",
    "HeatMaps",
    "Prediction",
    "PredictionJournal",
    "PredictionWriter",
    "Predictor",
    "ReadableInferer",
    "Scorer",
    "Scores",
    "StructuredReportWriter",
    "predict",
    "score_images",
]
