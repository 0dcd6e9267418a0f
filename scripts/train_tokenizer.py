"""Train the small byte-level BPE tokenizer of the embedded default from the bundle's own prompt files.

python scripts/train_tokenizer.py

What it writes by default is what the repository holds. Other sets are spelt in smaller pieces, as any text can be.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import fire
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cleft_bundle.data import load_prompts
from cleft_bundle.errors import BundleError

END = "<|endoftext|>"
#: The prompt files that the shipped tokenizer was trained on: their captions, and the prompts for what is present.
SETS = ("chexpert", "embed_birads", "embed_density")


def main(
    prompts: str = "configs/prompts",
    out: str = "configs/tokenizer_tiny",
    vocab_size: int = 768,
    sets: Sequence[str] = SETS,
) -> None:
    """Train on the texts of some prompt files and save a Hugging Face tokenizer folder.

    Args:
        prompts: folder of prompt files.
        out: folder to write.
        vocab_size: at most this many tokens, the 256 bytes and EOS among them.
        sets: names of prompt files, without suffix.
    """
    texts: list[str] = []
    for name in sets:
        content = load_prompts(Path(prompts, f"{name}.json"))
        texts += [*content.caption, *(text for group in content.classes.values() for text in group)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(out)
    print(f"{out}: {tokenizer.get_vocab_size()} tokens from {len(texts)} texts")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
