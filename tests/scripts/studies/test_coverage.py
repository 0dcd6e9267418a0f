import numpy as np
import pytest
from studies.coverage import METRICS, Population, as_table, coverage

from cleft_bundle.metrics import classification_metrics


@pytest.mark.parametrize("images", [1, 4])
def test_truth_is_what_very_many_patients_show(images):
    population = Population(100_000, images, 0.3, 0.85, 0.5 if images > 1 else 0.0)
    first, second = population.draw(np.random.default_rng(0))
    measured = classification_metrics(first, population.prevalence, METRICS)
    truth = {f"{name}/finding": value for name, value in population.truth().items()}
    assert {name: measured[name] for name in truth} == pytest.approx(truth, abs=0.005)
    assert classification_metrics(second, metrics=["auroc"])["auroc_macro"] == pytest.approx(0.8, abs=0.005)


@pytest.mark.slow
def test_intervals_by_patient_hold_the_truth_and_intervals_by_image_do_not():
    population = Population(patients=80, images=4, prevalence=0.4, auroc=0.75, correlation=0.8)
    held = coverage(population, simulations=300, resamples=200, seed=1)
    assert all(result.simulations == 300 for result in held.values())
    by_patient = {name: result.share for name, result in held.items() if "images" not in name}
    assert len(by_patient) == 12
    assert all(0.91 < share < 0.985 for share in by_patient.values()), by_patient  # 2.5 standard errors around 93..97 %
    assert held["bootstrap auroc, images"].share < 0.91
    assert held["DeLong, images"].share < 0.91
    lines = as_table([population], [held]).splitlines()
    assert lines[0] == "| interval | 80 x 1-4, 0.4, 0.75, 0.8 |"
    assert len(lines) == 2 + len(held)
