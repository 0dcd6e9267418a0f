"""The scoring method: every image of the datastore once, for the strategies to choose by."""

from __future__ import annotations

import logging
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from ..model import ServedModel
from ..scoring.table import ScoreTable

logger = logging.getLogger(__name__)


class CleftScoring(ScoringMethod):
    """Fill the table of scores and embeddings; an image that has been scored by the served classifier is left alone.

    Args:
        model: what is served.
        table: receives the scores.
    """

    def __init__(self, model: ServedModel, table: ScoreTable) -> None:
        super().__init__("Probabilities and embeddings of all images by the served classifier, stored once")
        self.model = model
        self.table = table

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what has no scores yet; the log tells how far it is.

        Returns:
            what :meth:`ScoreTable.complete` does, and ``seconds``.
        """
        start = time.monotonic()
        images = {image: datastore.get_image_uri(image) for image in datastore.list_images()}
        summary = self.table.complete(
            self.model, images, lambda done, total: logger.info("scored %d of %d images", done, total)
        )
        logger.info("scoring is done: %(images)d images, %(scored)d scored now, %(unreadable)d unreadable", summary)
        return {**summary, "seconds": round(time.monotonic() - start, 1)}
