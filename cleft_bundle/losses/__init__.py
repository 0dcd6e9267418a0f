"""Losses of language-image pre-training and of prompt fine-tuning."""

from cleft_bundle.losses.classification import ClassificationLoss, summed_loss
from cleft_bundle.losses.contrastive import ContrastiveLoss
from cleft_bundle.losses.own import own_loss
from cleft_bundle.losses.sigmoid import SigmoidLoss

__all__ = ["ClassificationLoss", "ContrastiveLoss", "SigmoidLoss", "own_loss", "summed_loss"]
