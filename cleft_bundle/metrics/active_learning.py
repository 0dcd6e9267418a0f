"""Choice of the images to label next: scores of how much a label would tell, and orders by them.

Everything here is NumPy on what a classifier gave: probabilities [N, K] and embeddings [N, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy.special import entr  # type: ignore[import-untyped]  # scipy ships no type information
from sklearn.metrics import euclidean_distances

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.vocabulary import Task

Strategy = Literal["entropy", "margin", "coreset", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

#: So many images stand for all when :func:`coreset` measures how near they are to labelled ones.
REPRESENTED = 2000

_SHOWN = 3
_AT_ONCE = 256  # images, so that the distances of many take little memory
_DIGITS = 7  # of a gain; the others are rounding


def entropy(probabilities: np.ndarray, task: Task) -> np.ndarray:
    """Score images by the entropy of their probabilities, as a share of the highest possible one.

    ``multiclass`` takes the entropy over the classes, ``multilabel`` the mean of the entropies of the findings, each of
    which is there or not.

    Args:
        probabilities: [N, K] in 0..1.
        task: ``multiclass`` or ``multilabel``.

    Returns:
        [N] in 0..1, where 1 is the least certain.

    Source: Lewis and Gale, "A sequential algorithm for training text classifiers", SIGIR 1994; Settles, "Active
    learning literature survey", 2009, section 3.1.
    """
    if task == "multiclass":
        return entr(probabilities).sum(axis=1) / np.log(probabilities.shape[1])
    return (entr(probabilities) + entr(1 - probabilities)).mean(axis=1) / np.log(2)


def margin(probabilities: np.ndarray, task: Task) -> np.ndarray:
    """Score images by how close their decision is: 1 less the margin by which it is taken.

    The margin of ``multiclass`` is what lies between the two highest probabilities; that of ``multilabel`` what lies
    between the presence and the absence of the finding for which that is least.

    Args:
        probabilities: [N, K] in 0..1, K at least 2 for ``multiclass``.
        task: ``multiclass`` or ``multilabel``.

    Returns:
        [N] in 0..1, where 1 is a tie.

    Source: Scheffer, Decomain and Wrobel, "Active hidden Markov models for information extraction", IDA 2001.
    """
    if task == "multiclass":
        second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
        return 1 - (first - second)
    return 1 - np.abs(2 * probabilities - 1).min(axis=1)


def coreset(embeddings: np.ndarray, labelled: np.ndarray, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Choose images one by one, each the one that brings all images nearest to labelled ones: greedy k-median.

    What is chosen is both diverse, since a second image of one kind brings nothing nearer, and typical, since an
    outlier brings only itself. Distances are shares of twice the greatest distance from the mean, so that none is above
    1, and 1 is how far all are where nothing is labelled. Of more than :data:`REPRESENTED` images, so many, evenly
    spaced, stand for all.

    Args:
        embeddings: [N, D].
        labelled: bool [N].
        count: how many to choose, None for all that are not labelled.

    Returns:
        places [count] in the order of choice, of equal ones the first, and for each in 0..1 by how much it lowers the
        mean distance to the nearest image labelled or chosen before. The latter never rise.

    Source: Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing submodular set functions",
    1978 (the greedy choice reaches 1 - 1/e of the best); Wei, Iyer and Bilmes, "Submodularity in data subset selection
    and active learning", ICML 2015.
    """
    free = ~np.asarray(labelled, dtype=bool)
    left = int(free.sum())
    count = left if count is None else min(count, left)
    order, gains = np.empty(count, dtype=np.intp), np.empty(count)
    if not count:
        return order, gains
    points = np.asarray(embeddings, dtype=np.float64)
    points = points - points.mean(axis=0)
    points /= max(2 * np.linalg.norm(points, axis=1).max(), np.finfo(np.float64).tiny)
    represented = points[np.linspace(0, len(points) - 1, min(len(points), REPRESENTED)).round().astype(np.intp)]
    nearest = np.ones(len(represented))
    centres = points[~free]
    for start in range(0, len(centres), _AT_ONCE):
        distances = euclidean_distances(centres[start : start + _AT_ONCE], represented)
        nearest = np.minimum(nearest, distances.min(axis=0))
    highest = np.where(free, np.inf, -1.0)  # what a gain is at most: it never rises while others are chosen
    for number in range(count):
        while True:  # until the highest of all has just been computed
            part = np.argsort(-highest, kind="stable")[: min(_AT_ONCE, left - number)]
            distances = euclidean_distances(points[part], represented)
            highest[part] = np.maximum(nearest - distances, 0.0).mean(axis=1).round(_DIGITS)
            chosen = int(highest.argmax())
            if chosen in part:
                break
        order[number], gains[number], highest[chosen] = chosen, highest[chosen], -1.0
        nearest = np.minimum(nearest, distances[part == chosen][0])
    return order, gains


def rank_unlabelled(
    strategy: Strategy,
    probabilities: np.ndarray,
    embeddings: np.ndarray,
    labelled: np.ndarray,
    task: Task,
    *,
    names: Sequence[str],
    count: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Put the unlabelled images into the order in which they are best labelled.

    Args:
        strategy: one of :data:`STRATEGIES`. ``random`` gives every image a number drawn from 0..1.
        probabilities: [N, K] in 0..1.
        embeddings: [N, D].
        labelled: bool [N].
        task: ``multiclass`` or ``multilabel``.
        names: what the N images are called in messages.
        count: how many to return, None for all.
        seed: of ``random``.

    Returns:
        places of unlabelled images [M], the best first and of equal ones the first, and their scores [M]; both are
        empty where all are labelled.

    Raises:
        BundleError: an unknown strategy or task, arrays that do not fit each other, or images with values that are
            not finite: names the first of these.
    """
    require_one_of("strategy", strategy, STRATEGIES)
    require_one_of("task", task, get_args(Task))
    shapes = [np.shape(part) for part in (probabilities, embeddings, labelled)]
    if [len(shape) for shape in shapes] != [2, 2, 1] or {shape[0] for shape in shapes} != {len(names)}:
        raise BundleError(f"expected probabilities [N, K], embeddings [N, D] and labelled [N] of {len(names)} images, "
                          f"got the shapes {', '.join(map(str, shapes))}")  # fmt: skip
    for kind, values in (("probabilities", probabilities), ("embeddings", embeddings)):
        broken = [names[row] for row in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()]
        if broken:
            shown = ", ".join(broken[:_SHOWN]) + (", ..." if len(broken) > _SHOWN else "")
            raise BundleError(f"{kind} of {len(broken)} images are not finite: {shown}")
    if strategy == "coreset":
        return coreset(embeddings, labelled, count)
    if strategy == "random":
        scores = np.random.default_rng(seed).random(len(names))
    else:
        scores = (entropy if strategy == "entropy" else margin)(np.asarray(probabilities, dtype=np.float64), task)
    free = np.flatnonzero(~np.asarray(labelled, dtype=bool))
    order = free[np.argsort(-scores[free], kind="stable")][:count]
    return order, scores[order]
