"""What a classifier keeps of the choice of its calibration."""

import numpy as np
import pytest

from cleft_bundle.engines.classifier_builder import calibrate
from cleft_bundle.inference import Scorer
from cleft_bundle.metrics import Screening
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.reports.evaluation.operating import Operating


@pytest.fixture
def fresh(classifier):
    """The very small classifier, not calibrated."""
    settings = {"preprocessing": classifier.preprocessing}
    return ZeroShotClassifier(classifier.image_encoder, classifier.class_names, "multilabel", **settings)


def validation(count):
    """Logits and labels of three classes; every patient has as many images as there are in four."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (count, 3)).astype(float)
    logits = 2 * labels + rng.normal(size=labels.shape)
    return logits, labels, [str(number // 4) for number in range(count)]


def test_the_file_tells_the_interval_by_patient_that_an_evaluation_tells(fresh):
    logits, labels, patients = validation(80)
    screening = Screening("bias")
    calibrate(fresh, screening, logits, labels, patients)
    kept = Scorer(fresh).calibration
    items = [{"name": str(number), "patient_id": patient} for number, patient in enumerate(patients)]
    chosen = Operating([], None, screening).choose(logits, labels, fresh.class_names, "multilabel", items)
    told = chosen["calibration"]
    assert (told["low"], told["high"], told["images"]) == (kept.low, kept.high, kept.n_images)
    assert kept.n_images == 80
    alone = screening.choose(logits, labels, fresh.class_names, "multilabel").calibration
    assert (alone.low, alone.high) != (kept.low, kept.high), "else images counted as patients would pass"


def test_too_few_images_leave_no_interval_behind(fresh):
    calibrate(fresh, Screening(), *validation(80))
    calibrate(fresh, Screening(), *validation(10))
    assert "temperature_interval" not in fresh.operating_point
    assert Scorer(fresh).calibration is None
