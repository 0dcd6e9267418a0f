"""From items to a batch: captions tokenised, padded to the longest of the batch, and equal ones folded into one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from monai.data.utils import list_data_collate
from transformers import PreTrainedTokenizerBase

from cleft_bundle.errors import BundleError


class CaptionTokenizer:
    """Tokenise captions as CLEFT reads them: on the left the words, on the right at least one EOS left out of the mask.

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
        self._skipped = len(tokenizer(after)["input_ids"]) if after else 0

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


class CaptionCollate:
    """Collate items into a batch in which the language model meets each distinct caption once.

    Args:
        tokenize: the tokenizer of the captions.
    """

    keys = ("image", "name")

    def __init__(self, tokenize: CaptionTokenizer) -> None:
        self.tokenize = tokenize

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate B items with ``image`` [3, H, W], ``label`` of K numbers, ``caption`` and ``name``.

        Returns:
            ``image`` [B, 3, H, W]; ``label`` float [B, K]; ``name`` list of B; ``input_ids`` and ``attention_mask``
            [N, T] of the N distinct captions in order of appearance; ``caption_index`` [B], which of them belongs to
            each image; ``caption_id`` int64 [B], a hash that is equal across batches and processes for equal captions.
        """
        batch = list_data_collate([{key: item[key] for key in self.keys} for item in items])
        captions = [item["caption"] for item in items]
        distinct = {caption: index for index, caption in enumerate(dict.fromkeys(captions))}
        return {
            "image": batch["image"],
            "label": torch.tensor([item["label"] for item in items], dtype=torch.float32),
            "name": batch["name"],
            "caption_index": torch.tensor([distinct[caption] for caption in captions]),
            "caption_id": torch.tensor([caption_id(caption) for caption in captions]),
            **self.tokenize(list(distinct)),
        }


def caption_id(caption: str) -> int:
    """A number of 63 bits for a caption, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1
