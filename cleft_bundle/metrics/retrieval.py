"""Retrieval between images and captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cleft_bundle.metrics.intervals import Basis

KS = (1, 5, 10)
_CELLS = 2**22  # similarities at a time


def retrieval_ranks(image: np.ndarray, text: np.ndarray, caption_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the right caption of each image among the distinct captions, and the best right image of each caption.

    Images with an equal caption are equally right: an image's hit is its caption, a caption's hit is any of its
    images.

    Args:
        image: unit vectors [N, D].
        text: unit vectors [N, D], of each image's caption.
        caption_id: int array [N], equal where the captions are equal.

    Returns:
        for each of the N images and for each of the M distinct captions, how many candidates come before the first
        right one, int [N] and int [M].
    """
    _, first, index = np.unique(caption_id, return_index=True, return_inverse=True)
    captions = text[first].T
    own = np.einsum("nd,nd->n", image, text[first][index])
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, index, own)
    image_rank, text_rank = np.empty(len(image), dtype=np.int64), np.zeros(len(first), dtype=np.int64)
    chunk = max(1, _CELLS // len(first))
    for start in range(0, len(image), chunk):
        rows = slice(start, start + chunk)
        similarity = image[rows] @ captions  # [chunk, M]
        taken = np.arange(len(similarity)), index[rows]
        similarity[taken] = own[rows]  # a product summed in another order may differ in its last digit
        image_rank[rows] = (similarity > own[rows, None]).sum(axis=1)
        text_rank += (similarity > best).sum(axis=0)
    return image_rank, text_rank


def retrieval_metrics(image_rank: np.ndarray, text_rank: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """Compute recall at k and the median rank from image to text and from text to image.

    Args:
        image_rank: of :func:`retrieval_ranks`, int [N].
        text_rank: of :func:`retrieval_ranks`, int [M].
        ks: the numbers of candidates looked at.

    Returns:
        ``image_to_text_recall_at_k`` and ``text_to_image_recall_at_k``, fractions in 0..1, and
        ``image_to_text_median_rank`` and ``text_to_image_median_rank``, from 1.
    """
    metrics: dict[str, float] = {}
    for direction, rank in (("image_to_text", image_rank), ("text_to_image", text_rank)):
        metrics |= {f"{direction}_recall_at_{k}": float((rank < k).mean()) for k in ks}
        metrics[f"{direction}_median_rank"] = float(np.median(rank) + 1)
    return metrics


class ImageToText:
    """Recall from image to text as a function of weights of the images, see :func:`cleft_bundle.metrics.resample`.

    The captions to choose from stay those of all images.

    Args:
        image_rank: of :func:`retrieval_ranks`, int [N].
        patients: int [N], numbers from 0.
        ks: the numbers of candidates looked at.
    """

    def __init__(self, image_rank: np.ndarray, patients: np.ndarray, ks: Sequence[int] = KS) -> None:
        self.names = [f"image_to_text_recall_at_{k}" for k in ks]
        self.hits = (image_rank[:, None] < np.array(ks)).astype(np.float64)
        self.count = len(np.unique(patients))

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Names to [R] values under weights uint8 [R, N]."""
        times = weights.astype(np.float64)
        return dict(zip(self.names, (times @ self.hits / times.sum(axis=1, keepdims=True)).T, strict=True))

    def basis(self) -> dict[str, Basis]:
        """The same names to what they rest on: all images."""
        return dict.fromkeys(self.names, Basis(len(self.hits), self.count, self.count))
