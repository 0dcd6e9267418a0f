"""Classification metrics of zero-shot scores, on top of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score


def classification_metrics(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], multiclass: bool
) -> dict[str, float]:
    """Compute the metrics of zero-shot scores.

    Args:
        scores: float array [N, K], higher where the class is more likely.
        labels: float array [N, K] of 1, 0 and NaN (unknown, left out of that class).
        class_names: the K names.
        multiclass: whether each image has exactly one class, so that accuracies are defined.

    Returns:
        ``auroc`` and ``average_precision``, the means over classes of which both sides occur; ``auroc_<class>`` for
        each of these; ``accuracy`` and ``balanced_accuracy`` for ``multiclass``. All lie in 0..1; a mean over no class
        is NaN.
    """
    auroc, precision = {}, []
    for index, name in enumerate(class_names):
        known = ~np.isnan(labels[:, index])
        truth, score = labels[known, index], scores[known, index]
        if len(np.unique(truth)) == 2:
            auroc[name] = float(roc_auc_score(truth, score))
            precision.append(float(average_precision_score(truth, score)))
    metrics = {
        "auroc": float(np.mean(list(auroc.values()))) if auroc else float("nan"),
        "average_precision": float(np.mean(precision)) if precision else float("nan"),
    }
    if multiclass:
        truth, predicted = labels.argmax(axis=1), scores.argmax(axis=1)
        metrics["accuracy"] = float((truth == predicted).mean())
        metrics["balanced_accuracy"] = float(balanced_accuracy_score(truth, predicted))
    return metrics | {f"auroc_{name.replace(' ', '_')}": value for name, value in auroc.items()}
