"""Typicality of images: how far their embeddings lie from those that a classifier was validated on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

#: Images below are flagged: they are less typical than 95 % of the validation patients.
UNUSUAL_BELOW = 0.05
#: Typicalities at which the quantiles of validation patients are kept, falling.
LEVELS = torch.linspace(1, UNUSUAL_BELOW, 20, dtype=torch.float64)
#: Buffers of :class:`Typicality`, all of which its state has.
TENSORS = ("means", "whitening", "centre", "centre_whitening", "neighbours", "spreads", "quantiles")


class Typicality(nn.Module):
    """Share of validation patients that are at most as typical as an image, 0..1.

    Three distances are taken: Mahalanobis' to the nearest class (class means, one shared covariance); the same less
    the squared one to all images as one class, its relative form; and the distance to the nearest of some neighbours.
    Each is put on one scale by its median and 95 % quantile over validation images, and the largest counts. A
    validation patient counts by the least typical image.

    Args:
        means: [G, D], of the classes that have images.
        whitening: [D, D], takes differences from the means to unit covariance.
        centre: [D], mean of all images.
        centre_whitening: [D, D], likewise for them.
        neighbours: [M, D], each the mean of five images or more: none of a single patient.
        spreads: [3, 2], median of each distance and what its 95 % quantile lies above it.
        quantiles: [20], of the largest over validation patients, rising, at :data:`LEVELS`.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018; Ren et
    al., "A simple fix to Mahalanobis distance for improving near-OOD detection", 2021; Sun et al., "Out-of-distribution
    detection with deep nearest neighbors", ICML 2022.
    """

    def __init__(
        self,
        means: torch.Tensor,
        whitening: torch.Tensor,
        centre: torch.Tensor,
        centre_whitening: torch.Tensor,
        neighbours: torch.Tensor,
        spreads: torch.Tensor,
        quantiles: torch.Tensor,
    ) -> None:
        super().__init__()
        given = (means, whitening, centre, centre_whitening, neighbours, spreads, quantiles)
        for name, value in zip(TENSORS, given, strict=True):
            self.register_buffer(name, value.detach().clone().float())
        self.spreads: torch.Tensor
        self.quantiles: torch.Tensor

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Typicality [B], float64, of embeddings [B, D]."""
        return self.share(self.distances(embedding))

    def distances(self, embedding: torch.Tensor) -> torch.Tensor:
        """The three distances [B, 3], float64, of embeddings [B, D]."""
        values: dict[str, torch.Tensor] = {name: getattr(self, name).double() for name in TENSORS}
        rows = embedding.double()
        of_class = (rows[:, None] - values["means"]) @ values["whitening"].T
        nearest = of_class.square().sum(dim=2).amin(dim=1)
        background = ((rows - values["centre"]) @ values["centre_whitening"].T).square().sum(dim=1)
        neighbour = torch.cdist(rows, values["neighbours"]).amin(dim=1)
        return torch.stack([nearest.sqrt(), nearest - background, neighbour], dim=1)

    def largest(self, distances: torch.Tensor) -> torch.Tensor:
        """The largest [B] of distances [B, 3] on their common scale."""
        spreads = self.spreads.double()
        return ((distances - spreads[:, 0]) / spreads[:, 1]).amax(dim=1)

    def share(self, distances: torch.Tensor) -> torch.Tensor:
        """Typicality [B] of distances [B, 3]; beyond the last quantile it falls exponentially."""
        quantiles = self.quantiles.double()
        levels, found = LEVELS.to(quantiles.device), self.largest(distances)
        place = torch.searchsorted(quantiles, found).clamp(1, len(levels) - 1)
        low, high = quantiles[place - 1], quantiles[place]
        part = ((found - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        share = levels[place - 1] + part * (levels[place] - levels[place - 1])
        tail = (quantiles[-1] - quantiles[len(levels) // 2]).clamp(min=1e-6)
        return torch.where(found > quantiles[-1], levels[-1] * torch.exp((quantiles[-1] - found) / tail), share)

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor], prefix: str = "") -> Typicality | None:
        """Typicality that a state holds under a prefix; None where it holds none, as files before version 0.12.0."""
        found = {name: state[prefix + name] for name in TENSORS if prefix + name in state}
        return cls(**found) if len(found) == len(TENSORS) else None
