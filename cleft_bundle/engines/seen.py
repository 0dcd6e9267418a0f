"""Statistics of the images that a classifier was validated on: kept in its file, so that others can be compared."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from cleft_bundle.checkpoints.patient_roles import LEAST
from cleft_bundle.distributed import gather_uneven

_DECILES = 10


def grey_levels(image: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation [B, 2] of the pixels of prepared images [B, C, H, W]."""
    pixels = image.detach().flatten(1).float()
    return torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1)


def describe_seen(greys: torch.Tensor, embeddings: torch.Tensor | None = None) -> dict[str, Any]:
    """Sum up images; no value is one of fewer than five of them.

    Args:
        greys: [N, 2] of :func:`grey_levels`.
        embeddings: [N, D] of the same images, as the classifier's head takes them; None where there are none.

    Returns:
        JSON-able: ``images``, their number; ``grey_mean`` and ``grey_spread``, the quantiles 0.1, 0.2 ... 0.9 over the
        images (as many evenly spaced ones as leave five images between two of them); ``embedding``, which has ``mean``
        and ``variance``, D numbers each, and ``distance``, like quantiles of an image's Euclidean distance from the
        mean. Of fewer than ten images their number alone.
    """
    found: dict[str, Any] = {"images": len(greys)}
    if len(greys) < 2 * LEAST:
        return found
    found |= {name: _quantiles(column) for name, column in zip(("grey_mean", "grey_spread"), greys.T, strict=True)}
    if embeddings is not None:
        rows = embeddings.double()
        mean = rows.mean(dim=0)
        found["embedding"] = {
            "mean": _rounded(mean),
            "variance": _rounded(rows.var(dim=0)),
            "distance": _quantiles((rows - mean).norm(dim=1)),
        }
    return found


class SeenImages:
    """Gather what :func:`describe_seen` needs during the evaluations of a dual encoder."""

    def __init__(self) -> None:
        self._greys: list[torch.Tensor] = []
        self._embeddings: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator; each evaluation begins anew."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)

    def describe(self) -> dict[str, Any]:
        """:func:`describe_seen` of the last evaluation's images, of all processes: all of them have to call it."""
        if not self._greys:
            return {}
        greys = gather_uneven(torch.cat(self._greys))
        return describe_seen(greys, gather_uneven(torch.cat(self._embeddings)) if self._embeddings else None)

    def _begin(self, engine: Engine) -> None:
        self._greys, self._embeddings = [], []

    def _add(self, engine: Engine) -> None:
        self._greys.append(grey_levels(engine.state.batch["image"]).cpu())
        embedding = engine.state.output["pred"].get("image_embedding")
        if embedding is not None:  # retrieval is measured, too
            self._embeddings.append(embedding.detach().float().cpu())


def _quantiles(values: torch.Tensor) -> list[float]:
    parts = min(_DECILES, len(values) // LEAST)
    places = torch.arange(1, parts, dtype=torch.float64) / parts
    return _rounded(values.double().quantile(places))


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
