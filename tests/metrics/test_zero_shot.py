import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from cleft_bundle.metrics import classification_metrics


def pairwise_auroc(score, truth):
    return mannwhitneyu(score[truth == 1], score[truth == 0]).statistic / ((truth == 1).sum() * (truth == 0).sum())


def test_multilabel_auroc_leaves_out_unknown_labels_and_counts_ties_half():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 3)).astype(float)
    scores = np.round(rng.random((60, 3)) + 0.3 * labels, 1)
    labels[rng.random((60, 3)) < 0.2] = np.nan
    metrics = classification_metrics(scores, labels, ["a", "b b", "c"], multiclass=False)
    expected = [pairwise_auroc(s[~np.isnan(t)], t[~np.isnan(t)]) for s, t in zip(scores.T, labels.T, strict=True)]
    assert [metrics[f"auroc_{name}"] for name in ("a", "b_b", "c")] == pytest.approx(expected)
    assert metrics["auroc"] == pytest.approx(np.mean(expected))
    assert "accuracy" not in metrics


def test_a_class_without_both_sides_is_left_out_of_the_mean():
    labels = np.array([[1.0, 0], [0, 0], [1, 0]])
    metrics = classification_metrics(
        np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.2]]), labels, ["a", "b"], multiclass=False
    )
    assert metrics["auroc"] == 1.0
    assert "auroc_b" not in metrics


def test_multiclass_accuracies():
    labels = np.eye(3)[[0, 0, 0, 1, 2]]
    scores = np.eye(3)[[0, 0, 1, 1, 0]]
    metrics = classification_metrics(scores, labels, ["a", "b", "c"], multiclass=True)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
