"""Train the small byte-level BPE tokenizer of the embedded default from the bundle's own prompt files.

python scripts/train_tokenizer.py --prompts configs/prompts --out configs/tokenizer_tiny
"""

from __future__ import annotations

import json
from pathlib import Path

import fire
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"


def main(prompts: str = "configs/prompts", out: str = "configs/tokenizer_tiny", vocab_size: int = 768) -> None:
    """Train on all texts of all prompt files and save a Hugging Face tokenizer folder.

    Args:
        prompts: folder of prompt files.
        out: folder to write.
        vocab_size: at most this many tokens, the 256 bytes and EOS among them.
    """
    texts = []
    for path in sorted(Path(prompts).glob("*.json")):
        content = json.loads(path.read_text())
        texts += [*content["caption"], *(text for group in content["classes"].values() for text in group)]
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
    fire.Fire(main)
