import numpy as np
import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ClassificationLoss

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_multiclass_is_the_cross_entropy_of_a_softmax():
    label = torch.eye(3, dtype=torch.float64)[[0, 2, 1, 1]]
    exponent = np.exp(LOGITS.numpy())
    probability = exponent / exponent.sum(axis=1, keepdims=True)
    expected = -np.log((probability * label.numpy()).sum(axis=1)).mean()
    assert ClassificationLoss("multiclass")(LOGITS, label).item() == pytest.approx(expected, abs=1e-12)


def test_multilabel_leaves_unknown_labels_out():
    label = torch.tensor([[1.0, 0.0, float("nan")]] * 4, dtype=torch.float64)
    probability = 1 / (1 + np.exp(-LOGITS.numpy()[:, :2]))
    expected = -np.log(np.where(label.numpy()[:, :2] == 1, probability, 1 - probability)).mean()
    assert ClassificationLoss("multilabel")(LOGITS, label).item() == pytest.approx(expected, abs=1e-12)


def test_an_unknown_task_is_refused():
    with pytest.raises(BundleError, match="task: expected one of multiclass, multilabel"):
        ClassificationLoss("regression")
