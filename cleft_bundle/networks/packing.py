"""Captions in few rows: their common beginning once a row, and no padding between them.

In a causal language model the hidden states of a beginning do not depend on what follows. Captions that all start with
"this is a chest x ray of a patient with" can therefore share it: one row holds the beginning and, after it, the rest
of several captions, which a mask keeps from seeing each other. Loss and gradients are those of one padded row a
caption; the cost is that of the tokens that differ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

SHARED, PADDING = -1, -2  # owners of the tokens that no caption has to itself


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
    device = token.device
    token, lengths = token.cpu(), length.tolist()
    shared = _shared_beginning(token, min(lengths))
    columns = token.shape[1]
    rows: list[list[list[int]]] = []  # of each row: source, position and owner of each token
    feature = []
    for caption, count in enumerate(lengths):
        rest = range(shared, count + 1)
        if not rows or len(rows[-1][0]) + len(rest) > row_tokens:
            start = caption * columns
            rows.append([list(range(start, start + shared)), list(range(shared)), [SHARED] * shared])
        source, position, owner = rows[-1]
        source.extend(caption * columns + place for place in rest)
        position.extend(rest)
        owner.extend([caption] * len(rest))
        feature.append((len(rows) - 1, len(source) - 1))
    width = max(len(source) for source, _, _ in rows)
    fills = (0, 0, PADDING)
    padded = [[part + [fill] * (width - len(part)) for part, fill in zip(row, fills, strict=True)] for row in rows]
    sources, positions, owners = torch.tensor(padded, device=device).unbind(dim=1)
    place = torch.tensor([row * width + column for row, column in feature], device=device)
    return PackedCaptions(sources, positions, _visible(positions, owners, place), place)


def _shared_beginning(token: torch.Tensor, limit: int) -> int:
    """How many of the first ``limit`` columns are equal in all rows, up to the first that is not."""
    equal = (token[:, :limit] == token[:1, :limit]).all(dim=0)
    return int(equal.cumprod(dim=0).sum())


def _visible(position: torch.Tensor, owner: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
    """Each token sees the shared beginning and its own caption, up to itself; a closing EOS is seen by nothing."""
    closing = torch.zeros_like(owner, dtype=torch.bool)
    closing.view(-1)[feature] = True
    of_row = (owner[:, None, :] == SHARED) | (owner[:, None, :] == owner[:, :, None])
    visible = of_row & (position[:, None, :] <= position[:, :, None]) & ~closing[:, None, :]
    padding = owner == PADDING
    # padding must see something, or its softmax is over nothing; itself is never seen by a token that counts
    visible |= padding[:, :, None] & torch.eye(owner.shape[1], dtype=torch.bool, device=owner.device)
    return visible[:, None]
