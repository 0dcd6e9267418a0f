"""Retrieval between images and captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln  # type: ignore[import-untyped]  # scipy ships no type information

from cleft_bundle.metrics.intervals import Basis

KS = (1, 5, 10)
#: Of the right candidate: how many come before it, how many are level with it (itself among them), and of those level
#: how many are right.
RANK = np.dtype([("before", np.int64), ("level", np.int64), ("right", np.int64)])
_CELLS = 2**22  # similarities at a time
_ALIKE = 1e-6  # cosines of vectors in single precision that differ by rounding only


def retrieval_ranks(image: np.ndarray, text: np.ndarray, caption_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the right caption of each image among the distinct captions, and the best right image of each caption.

    Images with an equal caption are equally right: an image's hit is its caption, a caption's hit is any of its
    images. Candidates as similar as the right one, but for rounding, are level with it.

    Args:
        image: unit vectors [N, D].
        text: unit vectors [N, D], of each image's caption.
        caption_id: int array [N], equal where the captions are equal, that is, their tokens
            (:func:`cleft_bundle.data.collate.caption_id`): what a tokenizer does not tell apart no network can.

    Returns:
        for each of the N images and for each of the M distinct captions its :data:`RANK`, structured arrays [N] and
        [M].
    """
    _, first, index = np.unique(caption_id, return_index=True, return_inverse=True)
    captions = text[first].T
    own = np.einsum("nd,nd->n", image, text[first][index])
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, index, own)
    image_rank, text_rank = np.zeros(len(image), dtype=RANK), np.zeros(len(first), dtype=RANK)
    image_rank["right"] = 1
    np.add.at(text_rank["right"], index, own >= best[index] - _ALIKE)
    chunk = max(1, _CELLS // len(first))
    for start in range(0, len(image), chunk):
        rows = slice(start, start + chunk)
        similarity = image[rows] @ captions  # [chunk, M]
        taken = np.arange(len(similarity)), index[rows]
        similarity[taken] = own[rows]  # a product summed in another order may differ in its last digit
        for rank, right, axis in ((image_rank[rows], own[rows, None], 1), (text_rank, best, 0)):
            above = (similarity > right + _ALIKE).sum(axis=axis)
            rank["before"] += above
            rank["level"] += (similarity >= right - _ALIKE).sum(axis=axis) - above
    return image_rank, text_rank


def hit_chance(rank: np.ndarray, ks: Sequence[int] = KS) -> np.ndarray:
    """Compute the chance that a right candidate is among the first k where level ones come in random order.

    Args:
        rank: of :func:`retrieval_ranks`, [N], or how many candidates come before, int [N], where none is level.
        ks: the numbers of candidates looked at.

    Returns:
        [N, len(ks)] in 0..1, all 0 and 1 where nothing is level.
    """
    rank = _with_level(rank)
    free = np.clip(np.array(ks) - rank["before"][:, None], 0, rank["level"][:, None])  # places for level candidates
    return 1 - _no_hit(rank["level"][:, None], rank["right"][:, None], free)


def mean_rank(rank: np.ndarray) -> np.ndarray:
    """Compute the mean place, from 1, of the first right candidate where level ones come in random order: [N]."""
    rank = _with_level(rank)
    return rank["before"] + (rank["level"] + 1) / (rank["right"] + 1)


def shown_ks(candidates: int, ks: Sequence[int] = KS) -> list[int]:
    """Keep the k that leave something out: those below the number of candidates."""
    return [k for k in ks if k < candidates]


def retrieval_metrics(image_rank: np.ndarray, text_rank: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """Compute recall at k and the median rank from image to text and from text to image.

    Args:
        image_rank: of :func:`retrieval_ranks`, [N].
        text_rank: of :func:`retrieval_ranks`, [M].
        ks: the numbers of candidates looked at.

    Returns:
        ``image_to_text_recall_at_k`` and ``text_to_image_recall_at_k``, fractions in 0..1 of :func:`hit_chance`, for
        each k below the M captions and the N images that there are to choose from, and ``image_to_text_median_rank``
        and ``text_to_image_median_rank``, from 1, of :func:`mean_rank`.
    """
    metrics: dict[str, float] = {}
    sides = (("image_to_text", image_rank, len(text_rank)), ("text_to_image", text_rank, len(image_rank)))
    for direction, rank, candidates in sides:
        shown = shown_ks(candidates, ks)
        metrics |= {
            f"{direction}_recall_at_{k}": float(share)
            for k, share in zip(shown, hit_chance(rank, shown).mean(axis=0), strict=True)
        }
        metrics[f"{direction}_median_rank"] = float(np.median(mean_rank(rank)))
    return metrics


def retrieval_chance(caption_id: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """Compute the recall of a network that knows nothing, by the names of :func:`retrieval_metrics`.

    Args:
        caption_id: int array [N], equal where the captions are equal.
        ks: the numbers of candidates looked at.
    """
    images = np.unique(caption_id, return_counts=True)[1]
    count = len(caption_id)
    chance = {f"image_to_text_recall_at_{k}": k / len(images) for k in shown_ks(len(images), ks)}
    for k in shown_ks(count, ks):
        chance[f"text_to_image_recall_at_{k}"] = float((1 - _no_hit(np.array(count), images, np.array(k))).mean())
    return chance


def _with_level(rank: np.ndarray) -> np.ndarray:
    if rank.dtype == RANK:
        return rank
    full = np.ones(len(rank), dtype=RANK)
    full["before"] = rank
    return full


def _no_hit(candidates: np.ndarray, right: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Chance that none of those drawn is right: ``C(candidates - right, drawn) / C(candidates, drawn)``."""
    wrong = candidates - right
    most = np.minimum(drawn, wrong)  # whoever draws more than there are wrong has a right one
    log = gammaln(wrong + 1) - gammaln(wrong - most + 1) - gammaln(candidates + 1) + gammaln(candidates - most + 1)
    return np.where(drawn > wrong, 0.0, np.exp(log))


class ImageToText:
    """Recall from image to text as a function of weights of the images, see :func:`cleft_bundle.metrics.resample`.

    The captions to choose from stay those of all images.

    Args:
        image_rank: of :func:`retrieval_ranks`, [N].
        patients: int [N], numbers from 0.
        ks: the numbers of candidates looked at.
    """

    def __init__(self, image_rank: np.ndarray, patients: np.ndarray, ks: Sequence[int] = KS) -> None:
        self.names = [f"image_to_text_recall_at_{k}" for k in ks]
        self.hits = hit_chance(image_rank, ks)
        self.count = len(np.unique(patients))

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Names to [R] values under weights uint8 [R, N]."""
        times = weights.astype(np.float64)
        return dict(zip(self.names, (times @ self.hits / times.sum(axis=1, keepdims=True)).T, strict=True))

    def basis(self) -> dict[str, Basis]:
        """The same names to what they rest on: all images."""
        return dict.fromkeys(self.names, Basis(len(self.hits), self.count, self.count))
