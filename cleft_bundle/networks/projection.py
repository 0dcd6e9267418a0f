"""The last layers of a tower, from the width of its backbone into the shared space."""

from __future__ import annotations

from typing import Literal

from torch import nn

from cleft_bundle.errors import BundleError

Projection = Literal["linear", "mlp"] | int
MLP_WIDTH = 2048  # of the hidden layer in the release


def build_projection(kind: Projection, features: int, embedding_dim: int) -> nn.Module:
    """Build a projection from ``features`` to ``embedding_dim``.

    Args:
        kind: ``linear``, CLEFT's recipe; ``mlp``, two layers with batch norm after each, 2048 wide between them; or
            another such width. Batch norm wants large batches: it is the release's alternative, not a recommendation.
        features: width of the backbone.
        embedding_dim: width of the shared space.

    Raises:
        BundleError: where ``kind`` is none of them.
    """
    if kind == "linear":
        return nn.Linear(features, embedding_dim)
    width = MLP_WIDTH if kind == "mlp" else kind
    if not isinstance(width, int) or width < 1:
        raise BundleError(f"projection: expected linear, mlp or the width of an mlp's hidden layer, got {kind!r}")
    return Mlp(
        nn.Linear(features, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, embedding_dim),
        nn.BatchNorm1d(embedding_dim, affine=False),
    )


class Mlp(nn.Sequential):
    """Layers with batch norm, which goes by its running statistics wherever the layers are frozen."""

    def train(self, mode: bool = True) -> Mlp:
        """Switch to training mode, unless nothing here is trained: a frozen projection must not change."""
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        return self
