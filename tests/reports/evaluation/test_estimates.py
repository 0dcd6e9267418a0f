import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Calibration, bootstrap
from cleft_bundle.reports.evaluation import Resampling
from cleft_bundle.reports.evaluation.estimates import estimates, retrieval_as_json

FEW = Resampling(resamples=50, seed=3)


def test_figures_are_those_at_the_thresholds(make_scored):
    scored = make_scored()
    content = estimates(scored, FEW)
    values = {name: metric["value"] for name, metric in content["metrics"].items()}
    for number, name in enumerate(scored.class_names):
        labels, called = scored.labels[:, number], scored.scores[:, number] >= scored.thresholds[name]
        assert values[f"auroc/{name}"] == pytest.approx(roc_auc_score(labels, scored.scores[:, number]))
        assert values[f"sensitivity/{name}"] == pytest.approx(called[labels == 1].mean())
        assert values[f"specificity/{name}"] == pytest.approx(1 - called[labels == 0].mean())
    expected = bootstrap(scored.predictions, resamples=50, seed=3, thresholds=[0.5, 0.4])["f1/edema"]
    found = content["metrics"]["f1/edema"]
    assert (found["low"], found["high"], found["n_patients"]) == (expected.low, expected.high, 30)
    assert content["classes"]["edema"]["positive"] == scored.labels[:, 1].sum()
    assert content["confusion_matrix"] is None
    assert sum(content["reliability"]["edema"]["count"]) == 60
    female = content["subgroups"]["sex"]["values"]["female"]
    rows = [row for row, item in enumerate(scored.items) if item.get("sex") == "F"]
    called = scored.scores[rows, 1] >= 0.4
    assert female["sensitivity/edema"]["value"] == pytest.approx(called[scored.labels[rows, 1] == 1].mean())
    assert content["subgroups"]["sex"]["n_unknown"] == 1
    json.dumps(content, allow_nan=False)


def test_without_thresholds_there_is_no_figure_that_needs_one(make_scored):
    content = estimates(make_scored(thresholds=None), FEW)
    assert not [name for name in content["metrics"] if name.startswith(("sensitivity", "specificity", "f1"))]
    assert "auroc_macro" in content["metrics"]
    partly = estimates(make_scored(thresholds={"edema": 0.4}), FEW)
    assert "sensitivity/effusion" not in partly["metrics"]
    whole = estimates(make_scored(), FEW)["metrics"]
    assert partly["metrics"]["sensitivity/edema"] == whole["sensitivity/edema"]
    assert partly["metrics"]["sensitivity_macro"]["value"] == whole["sensitivity/edema"]["value"]
    assert "auroc_macro" in partly["subgroups"]["sex"]["values"]["male"]
    assert "sensitivity/edema" in partly["subgroups"]["sex"]["values"]["male"]


def test_scores_that_are_no_probabilities_have_no_calibration(make_scored):
    content = estimates(make_scored(scores=100 * make_scored().scores, thresholds=None), FEW)
    assert content["reliability"] is None
    assert not [name for name in content["metrics"] if name.startswith(("brier", "ece"))]


def test_uncalibrated_scores_are_the_before_of_calibration_and_nothing_else(make_scored):
    rng = np.random.default_rng(5)
    labels = np.eye(3)[rng.integers(0, 3, 90)]
    logits = 6 * (labels + rng.normal(size=(90, 3)))
    given = {"class_names": ["a", "b", "c"], "task": "multiclass", "labels": labels, "thresholds": None}
    fitted = Calibration(6.0, [0.0, 0.0, 0.0], "multiclass")
    scored = make_scored(**given, logits=logits, scores=fitted(logits), calibration={"method": "temperature"})
    plain = Calibration(1.0, [0.0, 0.0, 0.0], "multiclass")(logits)
    content = estimates(scored, FEW)
    assert content["metrics"]["brier"]["value"] == pytest.approx(((fitted(logits) - labels) ** 2).sum(axis=1).mean())
    before = content["uncalibrated"]["metrics"]
    assert before["brier"]["value"] == pytest.approx(((plain - labels) ** 2).sum(axis=1).mean())
    assert set(before) == {"brier", "ece"}
    assert np.trace(content["confusion_matrix"]) == (logits.argmax(axis=1) == labels.argmax(axis=1)).sum()


def test_only_images_have_intervals_of_retrieval():
    found = retrieval_as_json(np.arange(60) % 4, np.arange(4), np.arange(60) // 2, FEW)
    assert found["image_to_text_recall_at_1"]["value"] == 0.25
    assert found["image_to_text_recall_at_1"]["low"] < 0.25
    assert found["text_to_image_recall_at_1"]["low"] is None


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"resamples": True}, {"confidence": 95}])
def test_settings_that_give_no_interval_are_refused(wrong):
    with pytest.raises(BundleError, match="expected"):
        Resampling(**wrong)
