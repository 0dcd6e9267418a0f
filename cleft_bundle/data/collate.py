"""From items to a batch: captions tokenised, padded to the longest of the batch, and equal ones folded into one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.utils import list_data_collate
from transformers import PreTrainedTokenizerBase

from cleft_bundle.data.item import Item
from cleft_bundle.data.token_checks import Tokenize, opening_length, token_rows, warn_of_cut_captions
from cleft_bundle.errors import BundleError
from cleft_bundle.parts import timed


class CaptionTokenizer:
    """Tokenise captions as CLEFT reads them: on the left the words, on the right at least one EOS left out of the mask.

    What the tokenizer itself puts around a text (BERT's CLS and SEP) counts as words.

    Args:
        tokenizer: a Hugging Face tokenizer with an EOS token (:func:`cleft_bundle.networks.load_tokenizer`).
        max_length: number of tokens of the window, its EOS included; longer captions are cut so that one EOS remains.
        after: words that come before every caption from elsewhere, such as a learnt context. The tokens are those that
            follow them: tokenizers tell a word that begins a text from the same word behind another.

    Raises:
        BundleError: where the window leaves no room for a word.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = 64, after: str = "") -> None:
        if max_length < 2:
            raise BundleError(f"max_length: a caption needs at least 2 tokens, one of them EOS, got {max_length}")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.after = f"{after} " if after else ""
        self._skipped = opening_length(*tokenizer([after, ""])["input_ids"]) if after else 0

    def __call__(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise N captions.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 tensors [N, T] with T the longest caption plus one EOS.
        """
        texts = [self.after + caption for caption in captions]
        whole = self.tokenizer(texts, truncation=True, max_length=self._skipped + self.max_length - 1)["input_ids"]
        rows = [row[self._skipped :] for row in whole]
        width = max(map(len, rows)) + 1
        input_ids = torch.full((len(rows), width), int(self.tokenizer.eos_token_id))
        attention_mask = torch.zeros_like(input_ids)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = torch.tensor(row)
            attention_mask[index, : len(row)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    @property
    def words(self) -> CaptionTokenizer:
        """The tokenizer of the words that a learnt context starts from: this one."""
        return self

    def behind(self, words: str, length: int) -> CaptionTokenizer:
        """The tokenizer of captions behind a learnt context.

        Args:
            words: what the context says before it is learnt.
            length: number of tokens that the context takes, which this window does not count.
        """
        return CaptionTokenizer(self.tokenizer, self.max_length, after=words)

    @property
    def window(self) -> str:
        """The limit as a config names it."""
        return f"max_caption_tokens {self.max_length}"

    def is_cut(self, captions: Sequence[str]) -> list[bool]:
        """True for each caption that is longer than the window, so that its end is not read."""
        rows = self.tokenizer([self.after + caption for caption in captions], verbose=False)["input_ids"]
        return [len(row) - self._skipped > self.max_length - 1 for row in rows]


class CaptionCollate:
    """Collate items into a batch in which the language model meets each distinct caption once.

    Args:
        tokenize: the tokenizer of the captions.
        items: a datalist of which the log says how many captions are cut, such as the training split.
        on_device: what is left to be done with the images of a batch where the network is; None: nothing.
    """

    keys = ("image", "name")

    def __init__(
        self, tokenize: Tokenize, items: Iterable[Item] = (), on_device: Callable[..., torch.Tensor] | None = None
    ) -> None:
        self.tokenize = tokenize
        self.on_device = on_device
        warn_of_cut_captions(items, tokenize)

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate B items with ``image`` [3, H, W], ``label`` of K numbers, ``caption``, ``name`` and ``patient_id``.

        Returns:
            ``image`` [B, 3, H, W], or what ``on_device`` makes that of, which the batch then holds too; ``label`` float
            [B, K]; ``name`` list of B; ``patient_id`` list of B, where all items have one; ``input_ids`` and
            ``attention_mask``
            [N, T] of the N distinct captions in order of appearance; ``caption_index`` [B], which of them belongs to
            each image; ``caption_id`` int64 [B], a hash that is equal across batches and processes for equal captions.
            Captions are equal where their tokens are: what differs behind the window differs for nobody.
        """
        batch = list_data_collate([{key: item[key] for key in self.keys} for item in items])
        texts = {caption: number for number, caption in enumerate(dict.fromkeys(item["caption"] for item in items))}
        with timed("tokenising"):
            tokens = self.tokenize(list(texts))
        rows = token_rows(tokens)
        place = {row: index for index, row in enumerate(dict.fromkeys(rows))}
        captions = [rows[texts[item["caption"]]] for item in items]
        first = [rows.index(row) for row in place]
        patients = [item["patient_id"] for item in items if "patient_id" in item]
        return {
            **({"patient_id": patients} if len(patients) == len(items) else {}),
            **({} if self.on_device is None else {"on_device": self.on_device}),
            "image": batch["image"],
            "label": torch.tensor([item["label"] for item in items], dtype=torch.float32),
            "name": batch["name"],
            "caption_index": torch.tensor([place[caption] for caption in captions]),
            "caption_id": torch.tensor([caption_id(caption) for caption in captions]),
            **{key: values[first] for key, values in tokens.items()},
        }


def caption_id(tokens: Sequence[int]) -> int:
    """A number of 63 bits for the tokens of a caption, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(np.array(tokens, dtype="<i8").tobytes(), digest_size=8).digest(), "big") >> 1
