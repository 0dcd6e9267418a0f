"""Images worth looking at: the surest right ones and the surest wrong ones, and where the network looked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from cleft_bundle.data.inference_dataset import TolerantDataset
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Predictions
from cleft_bundle.networks.heat_maps import contrast, pixel_map
from cleft_bundle.overlays import overlay
from cleft_bundle.pages import thumbnail

logger = logging.getLogger(__name__)

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


class CasePictures:
    """How cases look to the network, and where it looked.

    Args:
        count: images of each kind, at most.
        transform: from an item to ``image`` [1 or 3, H, W] of 0 to 1; deterministic.
        network_transform: from that to the ``image`` [3, H, W] that the network takes.
    """

    def __init__(
        self, count: int, transform: Callable[[Item], Item], network_transform: Callable[[Item], Item]
    ) -> None:
        self.count = count
        self.transform = transform
        self.network_transform = network_transform

    def picture(
        self,
        cases: Sequence[dict[str, Any]],
        predictions: Predictions,
        items: Sequence[Item],
        network: nn.Module,
        weights: torch.Tensor,
    ) -> list[dict[str, Any]]:
        """Add to each case how it looks and what is known of it.

        Args:
            cases: of :func:`choose_cases`, of one kind.
            predictions: of N images.
            items: the N items.
            network: what scored them.
            weights: of the K classes, [K, D]; the map is for how the class differs from the others.

        Returns:
            the cases, each with ``uri`` of a thumbnail and ``heat`` of one with the map, or None, ``error`` why there
            is none, ``position`` in the list of images, from 1, names of the classes ``present`` and the highest
            ``scores``, pairs of name and value. Neither names of files nor patients are among it.
        """
        pictured = TolerantDataset(
            [{"image": items[case["row"]]["image"], "path": ""} for case in cases], self.transform
        )
        directions = dict(zip(predictions.class_names, contrast(weights), strict=True))
        names = np.array(predictions.class_names)
        shown = []
        for case, result in zip(cases, pictured, strict=True):
            labels, scores = predictions.labels[case["row"]], predictions.scores[case["row"]]
            highest = np.argsort(-scores, kind="stable")[:3]
            image = None if "error" in result else torch.as_tensor(result["image"])
            shown.append(
                {
                    **case,
                    "uri": None if image is None else thumbnail(image),
                    "heat": None if image is None else self._heat(image, network, directions[case["class"]]),
                    "error": result.get("error", ""),
                    "position": case["row"] + 1,
                    "present": list(names[labels == 1]),
                    "scores": [(str(names[number]), float(scores[number])) for number in highest],
                }
            )
        return shown

    def _heat(self, image: torch.Tensor, network: nn.Module, direction: torch.Tensor) -> str | None:
        """A thumbnail with the heat map; None for towers of which there is no map."""
        ready = torch.as_tensor(self.network_transform({"image": image.clone()})["image"])[None]
        try:
            heat = pixel_map(network, ready.to(direction.device), direction[None])[0, 0]
        except BundleError as error:
            logger.warning("a case gets no heat map: %s", error)
            return None
        drawn = overlay(image.mean(dim=0).numpy(), heat.cpu().numpy())
        return thumbnail(torch.from_numpy(drawn.copy()).movedim(2, 0) / 255)
