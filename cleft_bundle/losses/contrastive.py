"""The contrastive loss of language-image pre-training."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.losses.gather import gather_rows
from cleft_bundle.networks.protocol import Embeddings

Positives = Literal["caption", "index", "labels"]


class ContrastiveLoss(nn.Module):
    """Cross-entropy from image to text plus from text to image over the batch, their sum as in CLEFT.

    What counts as a positive pair:

    - ``index``: an image and its own caption (CLIP, and CLEFT's release);
    - ``caption``: every pair with an equal caption, each with an equal share of the target. Label tables give the same
      caption to many images, and ``index`` would push those apart;
    - ``labels``: every pair in proportion to the overlap of its label vectors, so that a caption that names one of two
      findings is half a positive. Unknown labels count as absent, but images without a known finding are alike only
      where all their labels are known.

    Args:
        positives: one of these.
        gather: contrast with the images and captions of all processes. False, as in CLEFT's release: only with those
            of this one.

    Raises:
        BundleError: where ``positives`` is none of these.

    Source: Radford et al., "CLIP", ICML 2021 (``index``); Yang et al., "Unified Contrastive Learning in
    Image-Text-Label Space", CVPR 2022, equation 1 (``caption``); Wang et al., "MedCLIP", EMNLP 2022 (the idea of
    ``labels``, there with cosine similarity, here with the Jaccard index).

    Examples:
        >>> from cleft_bundle.networks.protocol import Embeddings
        >>> vectors, scale = torch.eye(3), torch.tensor(10.0)  # three images, each right upon its caption
        >>> far = ContrastiveLoss("index")(Embeddings(vectors, vectors.flip(0), scale), torch.arange(3))
        >>> near = ContrastiveLoss("index")(Embeddings(vectors, vectors, scale), torch.arange(3))
        >>> round(float(near), 4), round(float(far), 2)
        (0.0002, 13.33)
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
            embeddings: of B images and their captions, with the logit scale.
            target: what decides on positives. ``caption``: int64 [B], equal where the captions are equal; ``labels``:
                [B, K] of 1, 0 and NaN (unknown, counted as absent); ``index``: not looked at.

        Returns:
            the loss, a scalar tensor.

        Raises:
            BundleError: where the batch has one image, for which there is nothing to contrast.
        """
        everybody, target = gather_batch(embeddings, target, self.gather)
        logits = everybody.logit_scale * everybody.image @ everybody.text.T
        share = positive_pairs(target, self.positives, logits)
        share = share / share.sum(dim=1, keepdim=True)
        return F.cross_entropy(logits, share) + F.cross_entropy(logits.T, share)


def gather_batch(embeddings: Embeddings, target: torch.Tensor, gather: bool) -> tuple[Embeddings, torch.Tensor]:
    """Take the embeddings and the target of all processes where ``gather`` says so.

    Raises:
        BundleError: where there is one image in all.
    """
    if gather:
        embeddings = embeddings._replace(image=gather_rows(embeddings.image), text=gather_rows(embeddings.text))
        target = gather_rows(target)
    if len(embeddings.image) < 2:
        raise BundleError("batch_size: a contrastive loss needs at least two images a batch, got one")
    return embeddings, target


def positive_pairs(target: torch.Tensor, positives: Positives, like: torch.Tensor) -> torch.Tensor:
    """Degree to which image i and caption j belong together: symmetric [B, B] in 0..1, with ones on the diagonal."""
    if positives == "index":
        return torch.eye(len(like), device=like.device, dtype=like.dtype)
    if positives == "caption":
        return (target[:, None] == target[None, :]).to(like.dtype)
    present = torch.nan_to_num(target).to(like.dtype)
    both = present @ present.T
    count = present.sum(dim=1)
    either = count[:, None] + count[None, :] - both
    # two images without any finding are alike; one of which nothing positive and not all is known is like itself only
    sure = ~torch.isnan(target).any(dim=1)
    alike = torch.outer(sure, sure) | torch.eye(len(like), device=like.device, dtype=torch.bool)
    return torch.where(either > 0, both / either.clamp(min=1), alike.to(like.dtype))
