"""Retrieval between images and captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def retrieval_metrics(
    image: np.ndarray, text: np.ndarray, caption_id: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Compute recall at k from image to text and from text to image, over the distinct captions.

    Images with an equal caption are equally right: an image's hit is its caption, a caption's hit is any of its
    images.

    Args:
        image: unit vectors [N, D].
        text: unit vectors [N, D], of each image's caption.
        caption_id: int array [N], equal where the captions are equal.
        ks: the numbers of candidates looked at.

    Returns:
        ``image_to_text_recall_at_k`` and ``text_to_image_recall_at_k``, fractions in 0..1.
    """
    _, first, index = np.unique(caption_id, return_index=True, return_inverse=True)
    similarity = image @ text[first].T  # [N, captions]
    own = np.take_along_axis(similarity, index[:, None], axis=1)
    image_rank = (similarity > own).sum(axis=1)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, index, own[:, 0])
    text_rank = (similarity > best[None, :]).sum(axis=0)
    return {f"image_to_text_recall_at_{k}": float((image_rank < k).mean()) for k in ks} | {
        f"text_to_image_recall_at_{k}": float((text_rank < k).mean()) for k in ks
    }
