"""Pictures of the chosen cases, and of where the network looked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cleft_bundle.data.item import Item
from cleft_bundle.data.tolerant_dataset import TolerantDataset
from cleft_bundle.errors import BundleError
from cleft_bundle.inference.heat_overlay import heat_overlay
from cleft_bundle.networks.heat_maps import Head, class_maps
from cleft_bundle.networks.protocol import Network
from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.pages import thumbnail

logger = logging.getLogger(__name__)

Explain = Callable[[Item, torch.Tensor, str], np.ndarray | None]


class CasePictures:
    """Pictures of cases as the network sees them, with heat maps.

    Args:
        count: images of each kind, at most.
        transform: from an item to ``image`` [1 or 3, H, W] of 0 to 1; deterministic. None: no pictures.
        network_transform: from that to the ``image`` [3, H, W] that the network takes.
    """

    def __init__(
        self,
        count: int,
        transform: Callable[[Any], Any] | None = None,
        network_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.count = count
        self.transform = transform
        self.network_transform = network_transform

    def explain_by(self, network: Network, head: Head, class_names: Sequence[str]) -> Explain | None:
        """Make what draws a class's heat map [H, W] for an item and its image [1 or 3, H, W].

        Args:
            network: what scored the images.
            head: of the scores that are explained.
            class_names: names of the K classes.
        """
        if self.network_transform is None:
            return None
        prepare, places = self.network_transform, {name: number for number, name in enumerate(class_names)}

        def explain(_item: Item, image: torch.Tensor, name: str) -> np.ndarray | None:
            ready = torch.as_tensor(prepare({"image": image.clone()})["image"])[None]
            try:
                return class_maps(network, ready, head, [places[name]])[0, 0].cpu().numpy()
            except BundleError as error:  # towers of which there is no map
                logger.warning("a case gets no heat map: %s", error)
                return None

        return explain

    def picture(
        self, cases: Sequence[Mapping[str, Any]], scored: ScoredImages, explain: Explain | None = None
    ) -> list[dict[str, Any]]:
        """Add to each case how it looks and what is known of it.

        Args:
            cases: of :func:`cleft_bundle.reports.evaluation.cases.choose_cases`, of one kind.
            scored: the images that they were chosen from.
            explain: draws heat maps, see :meth:`explain_by`; only a class that was called gets one.

        Returns:
            the cases, each with ``uri`` of a thumbnail and ``heat`` of one with the map, or None, ``error`` why there
            is none, ``position`` in the list of images, from 1, names of the classes ``present`` and the highest
            ``scores``, pairs of name and value. Neither names of files nor patients are among it.
        """
        predictions, items = scored.predictions, scored.scored_items
        names = np.array(predictions.class_names, dtype=object)
        places = np.flatnonzero(scored.scored)
        shown = []
        for case, result in zip(cases, self._read([items[case["row"]] for case in cases]), strict=True):
            labels, scores = predictions.labels[case["row"]], predictions.scores[case["row"]]
            highest = np.argsort(-scores, kind="stable")[:3]
            image = torch.as_tensor(result["image"]) if "image" in result else None
            missed = labels[scored.class_names.index(case["class"])] == 1 and not _is_called(case)
            heat = (
                None
                if image is None or missed or explain is None
                else explain(items[case["row"]], image, case["class"])
            )
            shown.append(
                {
                    **case,
                    "uri": None if image is None else thumbnail(image),
                    "heat": None if image is None or heat is None else _drawn(image, heat),
                    "error": result.get("error", ""),
                    "position": int(places[case["row"]]) + 1,
                    "present": list(names[labels == 1]),
                    "scores": [(str(names[number]), float(scores[number])) for number in highest],
                }
            )
        return shown

    def _read(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """The pictures of some items, or why there is none."""
        if self.transform is None or not all("image" in item for item in items):
            return [{} for _ in items]
        return list(TolerantDataset([{"image": item["image"], "path": ""} for item in items], self.transform))


def _is_called(case: Mapping[str, Any]) -> bool:
    if case["threshold"] is None:
        return case["called"] is None
    return bool(case["score"] >= case["threshold"])


def _drawn(image: torch.Tensor, heat: np.ndarray) -> str:
    drawn = heat_overlay(image.mean(dim=0).numpy(), heat)
    return thumbnail(torch.from_numpy(drawn.copy()).movedim(2, 0) / 255)
