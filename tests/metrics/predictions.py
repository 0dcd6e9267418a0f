"""Random predictions for the tests of statistics."""

import numpy as np

from cleft_bundle.metrics import Predictions


def make(seed=0, images=120, classes=3, patients=40, task="multilabel", ties=False, unknown=0.1, groups=None):
    """Draw scores that know something of the labels; several images a patient."""
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        labels = np.eye(classes)[rng.integers(0, classes, images)]
        raw = rng.gumbel(size=(images, classes)) + 1.5 * labels
        scores = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        labels[rng.random(images) < unknown] = np.nan
    else:
        labels = (rng.random((images, classes)) < 0.4).astype(float)
        scores = 1 / (1 + np.exp(-rng.normal(size=(images, classes)) - labels + 0.5))
        labels[rng.random(labels.shape) < unknown] = np.nan
    if ties:
        scores = np.round(scores, 1)
    names = [f"image {index}" for index in range(images)]
    owners = [f"patient {number}" for number in rng.integers(0, patients, images)]
    return Predictions(scores, labels, [f"c{index}" for index in range(classes)], task, names, owners, groups or {})
