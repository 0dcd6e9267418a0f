"""Scored images of known properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cleft_bundle.reports.evaluation import ScoredImages

CLASSES = ["effusion", "edema"]


def items_of(count: int) -> list[dict[str, Any]]:
    """Two images a patient; the fourth image says nothing of the sex."""
    return [
        {"name": f"folder/{number}.png", "patient_id": f"{number // 2:016x}", "study_id": f"{number // 2:016x}"}
        | ({"sex": "FM"[number % 2]} if number != 3 else {})
        for number in range(count)
    ]


@pytest.fixture
def make_scored() -> Callable[..., ScoredImages]:
    """Make scored images: by default 60 of two findings, with thresholds and a few errors."""

    def make(**given: Any) -> ScoredImages:
        rng = np.random.default_rng(0)
        labels = (rng.random((60, 2)) < 0.4).astype(float)
        scores = 0.3 * labels + 0.7 * rng.random((60, 2))
        values = {
            "class_names": CLASSES,
            "task": "multilabel",
            "scores": scores,
            "labels": labels,
            "thresholds": {"effusion": 0.5, "edema": 0.4},
        } | given
        return ScoredImages(**{"items": items_of(len(values["scores"])), **values})

    return make


@pytest.fixture
def perfect(make_scored: Callable[..., ScoredImages]) -> ScoredImages:
    """A classifier without an error."""
    labels = np.eye(2)[np.arange(60) % 2]
    return make_scored(labels=labels, scores=0.2 + 0.6 * labels, thresholds={"effusion": 0.5, "edema": 0.5})
