"""Losses of language-image pre-training."""

from cleft_bundle.losses.contrastive import ContrastiveLoss

__all__ = ["ContrastiveLoss"]
