"""Small models that read in both directions, of random weights."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from transformers import BertTokenizerFast

from cleft_bundle.networks.backbones import load_backbone

SIZES = {
    **{"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 32, "max_position_embeddings": 32, "initializer_range": 0.3},
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
BERTS: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "modernbert": SIZES | SPECIAL | {"local_attention": 8},
    "electra": SIZES | {"embedding_size": 8},
    "distilbert": {
        **{"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32},
        "initializer_range": 0.3,
    },
    "mpnet": SIZES,
    "albert": SIZES | {"embedding_size": 8},
}
BERTS = {kind: {"model_type": kind} | values for kind, values in BERTS.items()}


def write_bert(folder: Path, kind: str = "bert") -> str:
    """Write a small BERT, or another of its family, with a tokenizer that puts CLS and SEP around a text."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    words = ["this", "is", "chest", "ray", "of", "patient", "with", "edema", "pleural", "effusion", "no", "finding"]
    vocabulary = list(dict.fromkeys([*marks, *letters, *words, *string.punctuation]))
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    values = BERTS[kind] | {"vocab_size": len(vocabulary), "max_position_embeddings": 128}
    load_backbone(values, "text_backbone").save_pretrained(folder)
    return str(folder)
