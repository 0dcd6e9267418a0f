"""Images worth looking at: what the classifier found, what it missed, and what it called without cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cleft_bundle.metrics import Predictions
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.turns import in_turn

KINDS = ("found", "missed", "false_alarms")


def outcomes(scored: ScoredImages) -> dict[str, np.ndarray]:
    """Tell what became of each image and class at the operating point.

    For ``multilabel`` a class is called from its threshold on, and a class without a threshold has no outcome. For
    ``multiclass`` the class with the highest score is called; only images of exactly one class have outcomes.

    Returns:
        :data:`KINDS` to bool [N, K] of the N scored images: ``found`` (present and called), ``missed`` (present and
        not called) and ``false_alarms`` (absent and called), and besides ``left_alone`` (absent and not called).
    """
    predictions = scored.predictions
    labels, scores = predictions.labels, predictions.scores
    if predictions.task == "multiclass":
        called = np.eye(labels.shape[1], dtype=bool)[scores.argmax(axis=1)]
        judged = np.broadcast_to((labels == 1).any(axis=1, keepdims=True), labels.shape)
    else:
        limits = np.array([scored.limits.get(name, np.nan) for name in predictions.class_names])
        called = scores >= limits
        judged = np.broadcast_to(~np.isnan(limits), labels.shape)
    present, absent = judged & (labels == 1), judged & (labels == 0)
    return {
        "found": present & called,
        "missed": present & ~called,
        "false_alarms": absent & called,
        "left_alone": absent & ~called,
    }


def choose_cases(scored: ScoredImages, count: int) -> dict[str, list[dict[str, Any]]]:
    """Choose images by the scores of their classes; the classes take turns, and no image or patient comes twice.

    Only what is right or wrong at the operating point is chosen: a classifier without errors has no missed case and no
    false alarm.

    Args:
        scored: N images.
        count: of each kind, at most.

    Returns:
        ``found``, ``missed`` and ``false_alarms`` of :func:`outcomes`, the surest first (of the missed, those with the
        lowest score): lists of ``row``, from 0 among the scored images, ``class``, ``score``, ``threshold`` (None where
        the highest score is called) and ``called``, the class that was called instead of a missed one of
        ``multiclass``, else None.
    """
    predictions, happened = scored.predictions, outcomes(scored)
    chosen: dict[str, list[dict[str, Any]]] = {}
    seen: set[int] = set()
    for kind in KINDS:
        sign = 1 if kind == "missed" else -1
        orders = [np.argsort(sign * column, kind="stable") for column in predictions.scores.T]
        queues = [order[happened[kind][order, number]].tolist() for number, order in enumerate(orders)]
        chosen[kind] = [_described(scored, *place) for place in _take_turns(queues, predictions, seen, count)]
        seen |= {case["row"] for case in chosen[kind]}
    return chosen


def _take_turns(
    queues: Sequence[Iterable[int]], predictions: Predictions, seen: set[int], count: int
) -> list[tuple[int, int]]:
    """Rows and classes of the cases, the next of each class in turn; each patient comes once."""
    patients: set[str] = set()
    cases: list[tuple[int, int]] = []
    for row, number in in_turn(queues, lambda row: row not in seen and predictions.patients[row] not in patients):
        if len(cases) == count:
            break
        patients.add(predictions.patients[row])
        cases.append((row, number))
    return cases


def _described(scored: ScoredImages, row: int, number: int) -> dict[str, Any]:
    name, scores = scored.class_names[number], scored.predictions.scores[row]
    single = scored.task == "multiclass"
    highest = scored.class_names[int(scores.argmax())]
    return {
        "row": row,
        "class": name,
        "score": float(scores[number]),
        "threshold": None if single else scored.limits[name],
        "called": highest if single and highest != name else None,
    }
