"""The learnt context of prompt fine-tuning, CLEFT's second stage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from cleft_bundle.data.token_checks import opening_length, token_rows
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.text.text_encoder import TextEncoder

logger = logging.getLogger(__name__)

LENGTH = 30
Context = Literal["shared", "per_class"]
WORDS = "this is a chest x ray of a patient with"


class PromptLearner(nn.Module):
    """Input embeddings that stand before the words of a class and are learnt while both towers are frozen.

    The context starts as the embedded tokens of ``words``, repeated until it has ``length`` vectors. A token that the
    tokenizer puts before every text (BERT's CLS) is the first of them; one that it puts behind stays behind the class.

    Args:
        text_encoder: the text tower whose token embeddings the context starts from.
        tokenize: the tokenizer, see :class:`cleft_bundle.data.CaptionTokenizer`.
        words: what the context says before it is learnt.
        length: number P of vectors, 1 or more.
        context: ``shared`` by all classes, or ``per_class``, one for each.
        classes: number K of classes, for ``per_class``.

    Raises:
        BundleError: where ``words`` are empty or the length leaves no room in the language model's window.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024; Zhou et al., "Learning to Prompt for Vision-Language Models",
    IJCV 2022. The defaults are CLEFT's.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        tokenize: Callable[[Sequence[str]], dict[str, torch.Tensor]],
        words: str = WORDS,
        length: int = LENGTH,
        context: Context = "shared",
        classes: int = 0,
    ) -> None:
        super().__init__()
        require_one_of("context", context, get_args(Context))
        window = text_encoder.max_positions
        if not 1 <= length <= window - 2:
            raise BundleError(
                f"prompt length: expected 1 to {window - 2}, which leaves a word and EOS in the language model's "
                f"window of {window}, got {length}"
            )
        spoken, nothing = token_rows(tokenize([words, ""]))
        tokens = torch.tensor(spoken[: opening_length(spoken, nothing)], dtype=torch.long)
        if not len(tokens):
            raise BundleError("prompt words: expected at least one word for the context to start from")
        if len(tokens) > length:
            logger.warning("context_words: %d of %d tokens are cut, as context_length is %d", len(tokens) - length,
                           len(tokens), length)  # fmt: skip
        device = text_encoder.language_model.device
        with torch.no_grad():
            start = text_encoder.embed_tokens(tokens.repeat(-(-length // len(tokens)))[:length].to(device)).float()
        self.context = nn.Parameter(start.clone() if context == "shared" else start.expand(classes, -1, -1).clone())

    def forward(self) -> torch.Tensor:
        """The context [P, H], or [K, P, H] with one per class."""
        return self.context
