"""The scoring method: every image of the datastore once, for the strategies to choose by."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from ..model import ServedModel
from ..scoring.table import ScoreTable

logger = logging.getLogger(__name__)


class ImageFiles(Mapping[str, str]):
    """From the id of each image of a datastore to its file; one of a PACS is fetched when it is asked for.

    Args:
        datastore: the datastore, as its list of images is now.
    """

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore
        self.images = dict.fromkeys(datastore.list_images())

    def __getitem__(self, image: str) -> str:
        """The file of an image."""
        return str(self.datastore.get_image_uri(image))

    def __iter__(self) -> Iterator[str]:
        """The ids."""
        return iter(self.images)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


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
        summary = self.table.complete(
            self.model,
            ImageFiles(datastore),
            lambda done, total: logger.info("scored %d of %d images", done, total),
        )
        logger.info("scoring is done: %(images)d images, %(scored)d scored now, %(unreadable)d unreadable", summary)
        return {**summary, "seconds": round(time.monotonic() - start, 1)}
