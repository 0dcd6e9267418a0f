"""The pairwise sigmoid loss of SigLIP."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.losses.contrastive import Positives, gather_batch, positive_pairs
from cleft_bundle.networks.protocol import Embeddings


class SigmoidLoss(nn.Module):
    """Decide for every pair of image and caption by itself whether they belong together.

    The network needs a learnt ``logit_bias`` (SigLIP starts it at -10, and the temperature at 0.1), because nearly all
    pairs are negatives. ``loss_sigmoid.json`` sets both.

    Args:
        positives: which pairs belong together, as in :class:`ContrastiveLoss`; ``index`` is SigLIP's.
        gather: pair with the images and captions of all processes.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, algorithm 1.

    Examples:
        >>> from cleft_bundle.networks.protocol import Embeddings
        >>> vectors = torch.eye(3)  # three images, each right upon its caption
        >>> embeddings = Embeddings(vectors, vectors, torch.tensor(10.0), torch.tensor(-5.0))
        >>> round(float(SigmoidLoss("index")(embeddings, torch.arange(3))), 4)
        0.0201
    """

    least_images = 2  # of a batch: one alone has no negatives

    def __init__(self, positives: Positives = "caption", gather: bool = True) -> None:
        super().__init__()
        require_one_of("positives", positives, get_args(Positives))
        self.positives = positives
        self.target = "label" if positives == "labels" else "caption_id"  # key of the batch that it compares with
        self.gather = gather

    def forward(self, embeddings: Embeddings, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss of one batch.

        Args:
            embeddings: of B images and their captions, with logit scale and logit bias.
            target: as in :meth:`ContrastiveLoss.forward`.

        Returns:
            the loss, a scalar tensor: summed over captions, averaged over these B images; its mean over the
            processes is that of the whole batch.

        Raises:
            BundleError: where the network has no logit bias, or the batch has one image.
        """
        if embeddings.logit_bias is None:
            raise BundleError("SigmoidLoss needs a network with a logit_bias; add configs/loss_sigmoid.json")
        batch = gather_batch(embeddings, target, self.gather)
        logits = embeddings.logit_scale * embeddings.image @ batch.text.T + embeddings.logit_bias
        share = positive_pairs(batch.target, self.positives, logits, batch.first)
        return F.binary_cross_entropy_with_logits(logits, share, reduction="sum") / len(logits)
