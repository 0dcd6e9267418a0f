"""The loss that a dual encoder was pre-trained with."""

from __future__ import annotations

from cleft_bundle.losses.contrastive import ContrastiveLoss, Positives
from cleft_bundle.losses.sigmoid import SigmoidLoss
from cleft_bundle.networks.protocol import DualNetwork


def own_loss(
    network: DualNetwork, positives: Positives = "caption", gather: bool = True
) -> ContrastiveLoss | SigmoidLoss:
    """SigLIP's pairwise sigmoid for a network with a learnt bias, CLIP's softmax for one without.

    Args:
        network: the dual encoder.
        positives: as of :class:`ContrastiveLoss`.
        gather: as of that class.
    """
    loss = ContrastiveLoss if network.logit_bias is None else SigmoidLoss
    return loss(positives, gather)
