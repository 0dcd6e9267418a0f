"""The strategies of this bundle as MONAI Label's."""

from __future__ import annotations

import logging
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from cleft_bundle.metrics import STRATEGIES, active_learning

from ..activelearning.ranked import next_image
from ..model import ServedModel
from ..scoring.scoring import ImageFiles
from ..scoring.table import ScoreTable

logger = logging.getLogger(__name__)

_DESCRIPTIONS = {
    "entropy": "The image whose probabilities have the highest entropy",
    "margin": "The image whose decision is closest",
    "coreset": "The image that brings all others nearest to a labelled one, in the space of embeddings",
    "random": "Any image",
}


class RankedStrategy(Strategy):
    """Show the unlabelled image that a strategy puts first.

    Args:
        name: one of :data:`cleft_bundle.metrics.STRATEGIES`.
        model: what is served.
        table: the stored scores.
    """

    def __init__(self, name: active_learning.Strategy, model: ServedModel, table: ScoreTable) -> None:
        super().__init__(_DESCRIPTIONS[name])
        self.name = name
        self.model = model
        self.table = table

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image, see :func:`next_image`; ``seed`` of the request is that of ``random``."""
        images = ImageFiles(datastore)
        labelled = set(datastore.get_labeled_images(request.get("label_tag"), request.get("labels")))
        shown = {}
        for image in images.keys() - labelled:
            info = datastore.get_image_info(image).get("strategy", {}).get(self.name, {})
            shown[image] = float(info.get("ts", 0))
        seed = int(request.get("seed", time.time_ns()))
        return next_image(self.name, self.model, self.table, images, labelled, shown, seed)


def strategies(model: ServedModel, table: ScoreTable) -> dict[str, Strategy]:
    """All strategies by name."""
    return {name: RankedStrategy(name, model, table) for name in STRATEGIES}
