"""Texts after a tokenizer: which of them are cut, and which are equal to the network.

To the network two texts are equal where their tokens are, whatever their characters: a tokenizer may fold case, and
what stands behind its window is not read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from cleft_bundle.data.item import Item
from cleft_bundle.distributed import rank
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

Tokenize = Callable[[Sequence[str]], dict[str, torch.Tensor]]


@runtime_checkable
class Windowed(Protocol):
    """A tokenizer that can say what it cuts."""

    @property
    def window(self) -> str:
        """Its limit in words, such as ``max_caption_tokens 64``."""

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """True for each of the texts that is longer than the window."""


def token_rows(tokens: Mapping[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """The tokens that the network reads of each text, without padding.

    Args:
        tokens: ``input_ids`` and ``attention_mask`` [N, T].
    """
    pairs = zip(tokens["input_ids"], tokens["attention_mask"].bool(), strict=True)
    return [tuple(row[mask].tolist()) for row, mask in pairs]


def opening_length(words: Sequence[int], nothing: Sequence[int]) -> int:
    """Number of the tokens of a text before what may follow it: all but those that close every text.

    Args:
        words: tokens of the text.
        nothing: tokens of the empty text. BERT's are its CLS and SEP, of which SEP closes.
    """
    closing = 0
    while closing < min(len(words), len(nothing)) and words[-1 - closing] == nothing[-1 - closing]:
        closing += 1
    return len(words) - closing


def captions_of(item: Item) -> list[str]:
    """All captions that an item may be trained with."""
    return item.get("captions") or [item["caption"]]


def warn_of_cut_captions(items: Iterable[Item], tokenize: Tokenize) -> None:
    """Say in one line how many of the different captions of some items are cut, and to what; nothing where none is.

    Of several processes the first one does.
    """
    captions = list(dict.fromkeys(text for item in items for text in captions_of(item) if text))
    if not captions or rank() > 0 or not isinstance(tokenize, Windowed):
        return
    if cut := sum(tokenize.is_cut(captions)):
        logger.warning("captions: %d of %d different ones are longer than %s and are cut: their ends are not read",
                       cut, len(captions), tokenize.window)  # fmt: skip


def check_class_tokens(
    prompts: Mapping[str, Sequence[str]], tokenize: Tokenize, negatives: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Refuse class prompts that the network cannot tell apart, and name the classes whose prompts are cut.

    Args:
        prompts: class name to its prompts.
        tokenize: their tokenizer.
        negatives: names of classes to prompts that say that the class is absent.

    Raises:
        BundleError: two classes have a prompt of equal tokens, or a class has it in both forms; names them and the
            window.
    """
    named = [(name, text) for group in (prompts, negatives or {}) for name, texts in group.items() for text in texts]
    rows = token_rows(tokenize([text for _, text in named]))
    is_cut, limit = [False] * len(named), "this tokenizer"
    if isinstance(tokenize, Windowed):
        is_cut, limit = tokenize.is_cut([text for _, text in named]), tokenize.window
    count = sum(map(len, prompts.values()))
    owners: dict[tuple[int, ...], int] = {}
    for place, row in enumerate(rows):
        if place < count:
            first = owners.setdefault(row, place)
            equal, what = named[first][0] != named[place][0], f"'{named[first][0]}' and '{named[place][0]}'"
        else:
            first = owners.get(row, place)
            equal = first != place and named[first][0] == named[place][0]
            what = f"a positive and a negative prompt of '{named[place][0]}'"
        if equal:
            how = f"once cut to {limit}: put what differs first, or raise it" if is_cut[place] else f"under {limit}"
            raise BundleError(f"class prompts: {what} have equal tokens {how}")
    _warn_of_prompts([name for name, _ in named], rows, is_cut, count, limit)


def _warn_of_prompts(
    names: Sequence[str], rows: Sequence[tuple[int, ...]], is_cut: Sequence[bool], count: int, limit: str
) -> None:
    """Name the classes whose prompts are cut, and those of whose first `count` prompts some are equal."""
    cut = list(dict.fromkeys(name for name, short in zip(names, is_cut, strict=True) if short))
    if cut and rank() == 0:
        logger.warning("class prompts: those of %s are longer than %s and are cut: their ends are not read",
                       ", ".join(cut), limit)  # fmt: skip
    times = Counter(zip(names[:count], rows[:count], strict=True))
    doubled = list(dict.fromkeys(name for (name, _), number in times.items() if number > 1))
    if doubled and rank() == 0:
        logger.warning("class prompts: some of %s have equal tokens and count several times", ", ".join(doubled))
