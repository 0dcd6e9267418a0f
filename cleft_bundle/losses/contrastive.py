"""The contrastive loss of language-image pre-training."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.distributed import rank
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
            the loss of these B images, a scalar tensor; its mean over the processes is that of the whole batch.

        Raises:
            BundleError: where the batch has one image, for which there is nothing to contrast.
        """
        batch = gather_batch(embeddings, target, self.gather)
        to_captions = embeddings.logit_scale * embeddings.image @ batch.text.T
        to_images = embeddings.logit_scale * embeddings.text @ batch.image.T
        share = positive_pairs(batch.target, self.positives, to_captions, batch.first)
        share = share / share.sum(dim=1, keepdim=True)
        return F.cross_entropy(to_captions, share) + F.cross_entropy(to_images, share)


class Batch(NamedTuple):
    """Images and captions that the rows of one process are compared with.

    Attributes:
        image: images of all processes, [N, D].
        text: their captions, [N, D].
        target: of all, [N] or [N, K].
        first: where this process's own B rows begin among the N.
    """

    image: torch.Tensor
    text: torch.Tensor
    target: torch.Tensor
    first: int


def gather_batch(embeddings: Embeddings, target: torch.Tensor, gather: bool) -> Batch:
    """Take the embeddings and the target of all processes where ``gather`` says so, else those of this one.

    Each process computes the logits of its own rows against all, [B, N]: memory grows with the number of processes,
    not with its square.

    Raises:
        BundleError: where there is one image in all.
    """
    batch = Batch(embeddings.image, embeddings.text, target, 0)
    if gather:
        first = rank() * len(target)
        batch = Batch(gather_rows(embeddings.image), gather_rows(embeddings.text), gather_rows(target), first)
    if len(batch.image) < 2:
        raise BundleError("batch_size: a contrastive loss needs at least two images a batch, got one")
    return batch


def positive_pairs(target: torch.Tensor, positives: Positives, logits: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Degree to which image i and caption j belong together.

    Args:
        target: of all N images and captions, see :meth:`ContrastiveLoss.forward`.
        positives: what decides.
        logits: of B images [B, N], whose precision and device the result has.
        first: number of the first of the B among the N.

    Returns:
        rows of a symmetric matrix, [B, N] in 0..1, with ones where an image meets its own caption.
    """
    own = torch.arange(first, first + len(logits), device=logits.device)
    itself = own[:, None] == torch.arange(logits.shape[1], device=logits.device)
    if positives == "index":
        return itself.to(logits.dtype)
    if positives == "caption":
        return (target[own][:, None] == target[None, :]).to(logits.dtype)
    present = torch.nan_to_num(target).to(logits.dtype)
    both = present[own] @ present.T
    count = present.sum(dim=1)
    either = count[own][:, None] + count[None, :] - both
    # two images without any finding are alike; one of which nothing positive and not all is known is like itself only
    sure = ~torch.isnan(target).any(dim=1)
    alike = torch.outer(sure[own], sure) | itself
    return torch.where(either > 0, both / either.clamp(min=1), alike.to(logits.dtype))
