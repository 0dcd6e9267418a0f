import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from cleft_bundle.metrics import calibrated_columns, classification_metrics, reliability
from tests.metrics.predictions import make


def test_reliability_is_scikit_learns_and_leaves_out_unknown_labels():
    predictions = make(images=500)
    for probabilities, labels in calibrated_columns(predictions).values():
        known = ~np.isnan(labels)
        diagram = reliability(probabilities, labels, bins=10)
        frequency, probability = calibration_curve(labels[known], probabilities[known], n_bins=10)
        filled = diagram.count > 0
        assert diagram.count.sum() == known.sum()
        assert diagram.frequency[filled] == pytest.approx(frequency)
        assert diagram.probability[filled] == pytest.approx(probability)
        assert np.isnan(diagram.frequency[~filled]).all()


def test_the_diagram_and_the_error_are_one_thing():
    for task in ("multilabel", "multiclass"):
        predictions = make(1, images=300, task=task)
        errors = {}
        for name, column in calibrated_columns(predictions).items():
            diagram = reliability(*column)
            gaps = np.nan_to_num(np.abs(diagram.probability - diagram.frequency))
            errors["ece" if task == "multiclass" else f"ece/{name}"] = (
                gaps * diagram.count
            ).sum() / diagram.count.sum()
        metrics = classification_metrics(predictions, metrics=["ece"])
        assert {name: metrics[name] for name in errors} == pytest.approx(errors)
