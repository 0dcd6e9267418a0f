"""Images worth looking at: the surest right ones and the surest wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cleft_bundle.data.inference_dataset import TolerantDataset
from cleft_bundle.metrics import Predictions
from cleft_bundle.pages import thumbnail

Item = dict[str, Any]


def choose_cases(predictions: Predictions, count: int) -> dict[str, list[dict[str, Any]]]:
    """Choose images by the scores of their classes; the classes take turns, and no image or patient comes twice.

    Args:
        predictions: of N images.
        count: of each kind, at most.

    Returns:
        ``found`` (a class is present and its score high), ``missed`` (present, its score low) and ``false_alarms``
        (absent, its score high): lists of ``row``, from 0, and ``class`` and ``score`` for which it was chosen.
    """
    labels, scores = predictions.labels, predictions.scores
    chosen: dict[str, list[dict[str, Any]]] = {}
    seen: set[int] = set()
    for kind, label, sign in (("found", 1, -1), ("missed", 1, 1), ("false_alarms", 0, -1)):
        orders = [np.argsort(sign * column, kind="stable") for column in scores.T]
        queues = [iter(order[labels[order, number] == label]) for number, order in enumerate(orders)]
        chosen[kind] = _take_turns(queues, predictions, seen, count)
        seen |= {case["row"] for case in chosen[kind]}
    return chosen


def _take_turns(queues: list, predictions: Predictions, seen: set[int], count: int) -> list[dict[str, Any]]:
    patients: set[str] = set()
    cases: list[dict[str, Any]] = []
    turns = list(enumerate(queues))
    while turns and len(cases) < count:
        number, queue = turns.pop(0)
        fresh = (int(row) for row in queue if int(row) not in seen and predictions.patients[row] not in patients)
        row = next(fresh, None)
        if row is not None and row not in {case["row"] for case in cases}:
            patients.add(predictions.patients[row])
            score = float(predictions.scores[row, number])
            cases.append({"row": row, "class": predictions.class_names[number], "score": score})
        if row is not None:
            turns.append((number, queue))
    return cases


def picture_cases(
    cases: Sequence[dict[str, Any]],
    predictions: Predictions,
    items: Sequence[Item],
    transform: Callable[[Item], Item],
) -> list[dict[str, Any]]:
    """Add to each case how it looks and what is known of it.

    Args:
        cases: of :func:`choose_cases`, of one kind.
        predictions: of N images.
        items: the N items.
        transform: from an item to ``image`` [1 or 3, H, W] of 0 to 1; deterministic.

    Returns:
        the cases, each with ``uri`` of a thumbnail or None, ``error`` why there is none, ``position`` in the list of
        images, from 1, names of the classes ``present`` and the highest ``scores``, pairs of name and value. Neither
        names of files nor patients are among it.
    """
    pictured = TolerantDataset([{"image": items[case["row"]]["image"], "path": ""} for case in cases], transform)
    names = np.array(predictions.class_names)
    shown = []
    for case, result in zip(cases, pictured, strict=True):
        labels, scores = predictions.labels[case["row"]], predictions.scores[case["row"]]
        highest = np.argsort(-scores, kind="stable")[:3]
        shown.append(
            {
                **case,
                "uri": None if "error" in result else thumbnail(result["image"]),
                "error": result.get("error", ""),
                "position": case["row"] + 1,
                "present": list(names[labels == 1]),
                "scores": [(str(names[number]), float(scores[number])) for number in highest],
            }
        )
    return shown
