"""The order in which unlabelled images are shown, from their stored scores and from what has been shown before."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.active_learning import Strategy, rank_unlabelled

from ..model import ServedModel
from ..scoring.table import METHOD, Entry, ScoreTable

#: An image that was shown and not labelled waits so long before its turn comes again.
SHOWN_SECONDS = 3600.0
#: So many images without scores are scored while a client waits; where there are more, scoring comes first.
SCORED_AT_ONCE = 64


def next_image(
    strategy: Strategy,
    model: ServedModel,
    table: ScoreTable,
    images: Mapping[str, str],
    labelled: Collection[str],
    shown: Mapping[str, float],
    seed: int,
) -> dict[str, Any] | None:
    """Choose the unlabelled image to show next.

    Images that were shown within :data:`SHOWN_SECONDS` wait until no other is left, and then the one shown longest ago
    comes first; for ``coreset`` they count as labelled. Images that cannot be read are never chosen, but for
    ``random``, which needs no scores.

    Args:
        strategy: the strategy.
        model: what is served.
        table: the stored scores.
        images: from the id of each image to its file.
        labelled: ids of the images that have a label.
        shown: from ids of images to when they were shown last, in seconds since 1970.
        seed: of ``random``.

    Returns:
        ``id``; ``score``, see :func:`cleft_bundle.metrics.active_learning.rank_unlabelled`; ``unlabelled``, how many
        images are left; ``model``, SHA-256 of the classifier that scored them. None where none is left.

    Raises:
        BundleError: where more than :data:`SCORED_AT_ONCE` images have no scores by the served classifier; says what to
            do.
    """
    current = model.current()
    scored = {} if strategy == "random" else _scored(current.digest, model, table, images)
    names = list(images) if strategy == "random" else list(scored)
    left = [image for image in names if image not in labelled]
    if not left:
        return None
    now = time.time()
    waiting = {image for image in left if now - shown.get(image, 0.0) < SHOWN_SECONDS}
    if len(waiting) == len(left):
        waiting.remove(min(left, key=lambda image: shown[image]))
    done = np.array([image in labelled or image in waiting for image in names])
    empty = np.zeros((len(names), 1))
    probabilities, embeddings = (
        np.stack([getattr(scored[image], part) for image in names]) if scored else empty
        for part in ("probabilities", "embedding")
    )
    order, scores = rank_unlabelled(
        strategy, probabilities, embeddings, done, current.classifier.task, names=names, count=1, seed=seed
    )
    chosen = {"id": names[order[0]], "score": float(scores[0])}
    return {**chosen, "unlabelled": len(left), "model": current.digest}


def _scored(digest: str, model: ServedModel, table: ScoreTable, images: Mapping[str, str]) -> dict[str, Entry]:
    """The entries of the images that could be read; a few that lack one are scored now."""
    entries = table.entries(digest, images)
    if 0 < len(images) - len(entries) <= SCORED_AT_ONCE:
        table.complete(model, images)
        entries = table.entries(digest, images)
    if missing := len(images) - len(entries):
        raise BundleError(
            f"{missing} of {len(images)} images have no scores by the served classifier: POST /scoring/{METHOD} "
            "computes them, GET /scoring/ tells how far it is; strategy random needs none"
        )
    return {image: entry for image, entry in entries.items() if not entry.error}
