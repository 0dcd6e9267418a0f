"""Packing is checked against what each caption would see in a row of its own."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.networks.text.packing import pack

EOS = 0
captions = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=12)


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows)) + 1
    return torch.tensor([row + [EOS] * (width - len(row)) for row in rows]), torch.tensor([len(row) for row in rows])


@given(captions, st.integers(1, 40))
def test_every_token_sees_its_own_caption_up_to_itself_and_nothing_else(rows, row_tokens):
    token, length = padded(rows)
    packed = pack(token, length, row_tokens)
    laid = token.reshape(-1)[packed.source]
    for row, feature in zip(rows, packed.feature.tolist(), strict=True):
        number, column = divmod(feature, laid.shape[1])
        seen = packed.visible[number, 0, column].nonzero()[:, 0]
        assert laid[number, seen].tolist() == row  # the closing EOS sees the caption, without itself
        assert packed.position[number, seen].tolist() == list(range(len(row)))
        assert packed.position[number, column] == len(row)
        for place, seer in enumerate(seen.tolist()):
            assert packed.visible[number, 0, seer].nonzero()[:, 0].tolist() == seen[: place + 1].tolist()


@given(captions)
def test_one_row_holds_the_tree_of_the_captions_and_no_more(rows):
    token, length = padded(rows)
    beginnings = {tuple(row[: end + 1]) for row in rows for end in range(len(row))}
    assert pack(token, length, 1000).source.shape == (1, len(beginnings) + len(rows))


@given(captions, st.integers(8, 40))
def test_a_row_holds_no_more_tokens_than_asked_for_and_captions_that_fit_share_one(rows, row_tokens):
    token, length = padded(rows)
    packed = pack(token, length, row_tokens)
    assert packed.source.shape[1] <= row_tokens
    assert len(np.unique(packed.feature.numpy())) == len(rows)


def test_padding_sees_itself_and_is_seen_by_nothing_else():
    packed = pack(*padded([[1, 2, 3, 4], [2]]), row_tokens=5)
    assert packed.source.shape == (2, 5)
    visible = packed.visible[1, 0]
    assert visible[2:, 2:].equal(torch.eye(3, dtype=torch.bool))
    assert not visible[:2, 2:].any()
