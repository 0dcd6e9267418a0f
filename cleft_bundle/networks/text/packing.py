"""Captions in few rows: what several begin with stands once per row, and no padding stands between them.

In a causal language model the hidden states of a beginning do not depend on what follows. All of CLEFT's captions
start with "this is a chest x ray of a patient with", and many go on alike: sorted, they are a tree of tokens. A row
holds such a tree, in which a mask shows each token the path that leads to it and nothing else. Loss and gradients are
those of one padded row per caption; the cost is that of the tokens that differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class PackedCaptions(NamedTuple):
    """R rows of L tokens that stand for N captions.

    Attributes:
        source: int64 [R, L], which token of the flattened captions stands there.
        position: int64 [R, L], its place in its own caption.
        visible: bool [R, 1, L, L], which tokens (last axis) each token attends to.
        feature: int64 [N], place in the flattened rows of each caption's closing EOS.
    """

    source: torch.Tensor
    position: torch.Tensor
    visible: torch.Tensor
    feature: torch.Tensor

    def to(self, device: torch.device) -> PackedCaptions:
        """The layout on a device, which nothing waits for."""
        return PackedCaptions(*(part.to(device, non_blocking=True) for part in self))


def pack(token: torch.Tensor, length: torch.Tensor, row_tokens: int) -> PackedCaptions:
    """Lay captions out in rows.

    As in CLEFT's padded form the EOS that closes a caption is left out of the attention mask: it sees the caption but
    not itself.

    Args:
        token: int64 [N, T]; two captions share a beginning as far as their rows are equal.
        length: int64 [N], tokens of each caption without its EOS, 1 to T - 1.
        row_tokens: a row takes further captions until it holds this many tokens.

    Returns:
        the layout, on the device of ``token``.
    """
    tokens, lengths = token.cpu().numpy(), length.cpu().numpy()
    order, shared = _sort(tokens, lengths)
    rows: list[_Row] = []
    place = np.empty((len(tokens), 2), dtype=np.int64)
    for caption, common in zip(order, shared, strict=True):
        full = not rows or rows[-1].width + lengths[caption] + 1 - common > row_tokens
        if full:
            rows.append(_Row())
        known = 0 if full else common
        place[caption] = len(rows) - 1, rows[-1].add(caption * tokens.shape[1], known, lengths[caption])
    width = max(row.width for row in rows)
    source, position = np.zeros((2, len(rows), width), dtype=np.int64)
    # padding sees itself, for a softmax must be over something; no token that counts sees padding
    visible = np.broadcast_to(np.eye(width, dtype=bool), (len(rows), 1, width, width)).copy()
    for number, row in enumerate(rows):
        source[number, : row.width] = np.concatenate(row.source)
        position[number, : row.width] = np.concatenate(row.position)
        for path, new in row.paths:
            visible[number, 0, path[new:, None], path] = np.tri(len(path) - new, len(path), new, dtype=bool)
            visible[number, 0, path[-1], path[-1]] = False
    parts = (source, position, visible, place[:, 0] * width + place[:, 1])
    return PackedCaptions(*(torch.from_numpy(part).to(token.device) for part in parts))


class _Row:
    """A tree of captions that are added in sorted order: each begins with a part of the path of the one before."""

    def __init__(self) -> None:
        self.width = 0
        self.source: list[np.ndarray] = []
        self.position: list[np.ndarray] = []
        self.paths: list[tuple[np.ndarray, int]] = []  # columns from the root to the EOS, and how many are not new

    def add(self, start: int, known: int, length: int) -> int:
        """Add the caption at ``start`` from its token ``known`` on; return the column of its closing EOS."""
        rest = np.arange(known, length + 1)
        columns = self.width + rest - known
        before = self.paths[-1][0][:known] if self.paths else columns[:0]
        self.source.append(start + rest)
        self.position.append(rest)
        self.paths.append((np.concatenate([before, columns]), known))
        self.width += len(rest)
        return int(columns[-1])


def _sort(tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order in which captions with a common beginning are neighbours, and how much each shares with the one before."""
    within = np.arange(tokens.shape[1]) < lengths[:, None]
    keys = np.where(within, tokens, np.iinfo(tokens.dtype).min)
    order = np.lexsort(keys.T[::-1])
    equal = (keys[order][1:] == keys[order][:-1]) & within[order][1:] & within[order][:-1]
    return order, np.concatenate([[0], np.cumprod(equal, axis=1).sum(axis=1)])
