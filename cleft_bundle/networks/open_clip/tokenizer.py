"""Tokenizers of open_clip checkpoints as those of transformers, which clean a text first as open_clip does."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.open_clip_files import place_of, read_config

_BYTE_PAIRS = "bpe_simple_vocab_16e6.txt.gz"  # of OpenAI's CLIP, in the folder of the package open_clip
_MERGES = 49152 - 256 - 2
_SPACES = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
_CLEANED = {  # by open_clip's names; it mends mojibake and HTML entities first (ftfy), which captions here do not have
    "whitespace": _SPACES,
    "lower": [*_SPACES, normalizers.Lowercase()],
    "canonicalize": [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Lowercase(),
        *_SPACES,
    ],
}


def load_open_clip_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of an open_clip checkpoint.

    Args:
        source: a local folder, whose own tokenizer files are read, or ``hf-hub:OWNER/NAME``, whose config names them.
            Where a checkpoint has none it is CLIP's, which the package open_clip brings.

    Returns:
        a tokenizer that gives open_clip's tokens, those of padding apart: cutting and padding are the caller's.

    Raises:
        BundleError: where it cannot be loaded, or open_clip would use it in a way that is not known here.
    """
    cfg = read_config(source)["model_cfg"]["text_cfg"]
    named = cfg.get("hf_tokenizer_name")
    options: Mapping[str, Any] = cfg.get("tokenizer_kwargs") or {}
    clean = options.get("clean", "whitespace" if named else "lower")
    odd = sorted(set(options) - {"clean"}) + (["tokenizer_mode"] if cfg.get("tokenizer_mode") else [])
    if odd or clean not in _CLEANED:
        raise BundleError(f"dual_encoder: the tokenizer of {source!r} has a {(odd or ['clean'])[0]} not known here")
    place = place_of(source)
    folder = os.path.isdir(place)
    if not named and folder and not any(Path(place).glob("*token*")):
        tokenizer: Any = _tokenizer_of_clip()
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(place if folder or not named else named)
        except (OSError, ValueError) as error:
            reason = one_line(error, 300)
            raise BundleError(f"dual_encoder: the tokenizer of {place!r} cannot be loaded: {reason}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BundleError(f"dual_encoder: the tokenizer of {place!r} is a {type(tokenizer).__name__}, not a fast one")
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*_CLEANED[clean], *own])
    return tokenizer


def _tokenizer_of_clip() -> CLIPTokenizer:
    """CLIP's tokenizer from the byte pairs that the package open_clip brings; it need not be importable.

    Raises:
        BundleError: where the package is not installed.
    """
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise BundleError(
            "dual_encoder: the checkpoint has no tokenizer files, so that its tokenizer is that of the package "
            "open_clip: pip install 'cleft_bundle[open_clip]'"
        )
    with gzip.open(Path(found.origin).with_name(_BYTE_PAIRS), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    letters = list(bytes_to_unicode().values())
    words = [*(letter + end for end, letter in product(("", "</w>"), letters)), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({word: number for number, word in enumerate(words)}, merges)  # type: ignore[arg-type]
