"""The text tower of CLEFT: a language model, adapted by few parameters, and a projection."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.extras import require
from cleft_bundle.networks.backbones import describe_source, fingerprint, freeze, load_backbone, value_fingerprint
from cleft_bundle.networks.modes import evaluating
from cleft_bundle.networks.peft_methods import resolve_peft
from cleft_bundle.networks.precision import is_norm, lowest_precision, train_in_float32
from cleft_bundle.networks.projection import Projection, build_projection
from cleft_bundle.networks.text import probes
from cleft_bundle.networks.text.frozen_products import speed_up_frozen_products
from cleft_bundle.networks.text.packing import pack
from cleft_bundle.networks.text.pooling import pool, resolve_pooling
from cleft_bundle.parts import timed

logger = logging.getLogger(__name__)

Part = Literal["embeddings", "layer_norms"]
Form = Callable[[torch.Tensor, torch.dtype], torch.Tensor]
#: Forms of a mask of what each token sees: SDPA takes it as it is; eager attention adds what it is given to its scores.
FORMS: dict[str, Form] = {
    "bool": lambda seen, _: seen,
    "added": lambda seen, dtype: torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min),
}
PRECISIONS = ("float32", "bfloat16", "float16", "4bit")


class TextEncoder(nn.Module):
    """A language model that maps a tokenised caption to a unit vector of the shared space.

    The text feature of a causal model is the hidden state, after the final norm, at the first position that the
    attention mask leaves out: the EOS token which ends the caption. :class:`cleft_bundle.data.CaptionCollate` always
    leaves room for it. That of a model which reads in both directions (BERT and its families) is the mean over its
    tokens, or the state of the first. Which kind a model is, is measured when the tower is built.

    Args:
        backbone: hub id, local folder, or config values with ``model_type`` for random weights.
        embedding_dim: width D of the shared space.
        peft: how the model is adapted: ``lora``, ``dora``, ``ia3``, ``prefix``, ``adalora``, ``none`` or ``full`` with
            CLEFT's values, or a config of the peft library with others, such as ``peft.LoraConfig``.
        unfreeze: further parts of the model that are trained: ``embeddings`` (of the tokens), ``layer_norms``.
        projection: ``linear``, ``mlp`` or the width of an ``mlp``, see
            :func:`cleft_bundle.networks.projection.build_projection`.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        row_tokens: pack captions into rows of up to this many tokens, where what several begin with runs once, see
            :mod:`cleft_bundle.networks.text.packing`. It changes the cost and nothing else, which is tried with a few
            captions when the tower is built: a model in which packed captions come out otherwise than padded ones gets
            padded rows, and the log says so. None gives each caption a padded row of its own.
        seed: seed of random weights: those of the adapters, of the projection and of a backbone from a config.
        dtype: precision of the frozen weights: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"4bit"`` (NF4 of
            bitsandbytes, which needs CUDA); what is trained is kept in float32.
        pooling: ``auto``, ``end``, ``cls`` or ``mean``, see
            :func:`cleft_bundle.networks.text.pooling.resolve_pooling`.

    Raises:
        BundleError: where the backbone cannot be loaded, a value is none of the above, or a target of the method
            matches no layer; where the backbone does not read text alone, or the pooling or the method does not go with
            the way in which it reads.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024; Dettmers et al., "QLoRA", NeurIPS 2023.

    Examples:
        >>> config = {"model_type": "gpt2", "vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
        >>> encoder = TextEncoder(config, embedding_dim=8, peft="none")
        >>> tokens = torch.tensor([[5, 6, 0], [7, 0, 0]])  # a caption of two tokens and one of one, EOS behind them
        >>> encoder(tokens, torch.tensor([[1, 1, 0], [1, 0, 0]])).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        embedding_dim: int = 512,
        peft: Any = "lora",
        unfreeze: Sequence[Part] = (),
        projection: Projection = "linear",
        gradient_checkpointing: bool = False,
        row_tokens: int | None = 512,
        seed: int = 0,
        dtype: str = "float32",
        pooling: str = "auto",
    ) -> None:
        super().__init__()
        self.peft = resolve_peft(peft)
        model = probes.drop_pooler(load_backbone(backbone, "text_backbone", seed=seed, **_precision(dtype)))
        model.config.use_cache = False
        freeze(model)
        self.fingerprint = fingerprint(model.named_parameters())
        self.former_fingerprint = value_fingerprint(model.named_parameters())  # what 0.6.0 wrote into checkpoints
        self.source = describe_source(backbone)
        if gradient_checkpointing:
            if not self.peft.recomputes:
                raise BundleError(
                    f"{self.peft}: its keys and values do not go with gradient_checkpointing; set that false"
                )
            # non-reentrant: the reentrant form gives no gradient to adapters whose inputs are frozen
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._first_position = probes.first_position(model)
        self.embedding_dim = embedding_dim
        if self.peft.virtual_tokens and not probes.nature(model, self.source).causal:
            raise BundleError(f"{self.peft}: its keys and values want a causal model, {self.source} reads both ways")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone: Any = self.peft.apply(model)
            unfreeze_parts(model, unfreeze)
            speed_up_frozen_products(model)
            train_in_float32(model)
            self.causal, self.hidden_size = probes.nature(model, self.source)
            self.projection = build_projection(projection, self.hidden_size, embedding_dim)
        self.pooling = resolve_pooling(pooling, self.causal, self.source)
        self.row_tokens: int | None = None
        self._form, self._window = FORMS["bool"], sys.maxsize
        if row_tokens is not None and self.causal:  # what reads in both directions shares no beginnings
            self._try_packing(row_tokens)

    @property
    def language_model(self) -> Any:
        """The Hugging Face model itself, below whatever peft put around it."""
        return self.peft.base(self.backbone)

    @property
    def max_positions(self) -> int:
        """Number of tokens, EOS included, that the language model can take besides a prefix.

        Models that know no absolute positions (Bloom, Mamba) can take any number.
        """
        config = self.language_model.config
        limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
        taken = self.peft.virtual_tokens + self._first_position
        return next((int(limit) for limit in limits if limit), sys.maxsize) - taken

    @property
    def _device(self) -> torch.device:
        return next(self.projection.parameters()).device

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings [..., H] of tokens [...]."""
        return self.language_model.get_input_embeddings()(input_ids)

    def penalty(self) -> torch.Tensor | float:
        """Term that the method adds to the training loss."""
        return self.peft.penalty(self.backbone)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed captions: :meth:`features` and :meth:`project`.

        Returns:
            L2-normalised embeddings [N, D].
        """
        return self.project(self.features(input_ids, attention_mask, context))

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features of captions by the language model, before the projection.

        Args:
            input_ids: int64 tensor [N, T], padded on the right with EOS, for ``end`` pooling at least one EOS per row.
                Captions on the processor are checked and laid out there, and nothing waits for the device.
            attention_mask: int64 tensor [N, T], 1 for the caption's tokens and 0 from its EOS on.
            context: float tensor of input embeddings that stand before the tokens: [P, H] before each caption, or
                [N, P, H], a context of its own for each.

        Returns:
            features [N, H].

        Raises:
            BundleError: where ``end`` pooling finds no position that the mask leaves out, a caption is empty, or
                context and caption are longer than the model's window.
        """
        with timed("checks"):
            length = attention_mask.sum(dim=1)
            if self.pooling == "end" and bool((length >= attention_mask.shape[1]).any()):
                raise BundleError("a caption fills its row: leave one EOS token outside the attention mask")
            if bool((length == 0).any()):
                raise BundleError("a caption is empty: expected at least one token before its EOS")
        before = 0 if context is None else context.shape[-2]
        if before + input_ids.shape[1] > self.max_positions:
            raise BundleError(
                f"a context of {before} and captions of {input_ids.shape[1]} tokens, EOS included, are longer than "
                f"the language model's window of {self.max_positions}"
            )
        # float16 is mixed with float32 where something is trained, and does not mix with autocast's bfloat16 as well
        device = self._device
        alone = torch.autocast(device.type, enabled=False) if self.dtype == torch.float16 else nullcontext()
        with alone:
            if self.row_tokens is None or before + input_ids.shape[1] > self._window:
                return self._padded(input_ids.to(device), attention_mask.to(device), context)
            return self._packed(input_ids, length, context, self.row_tokens)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """L2-normalised embeddings [N, D] of features [N, H]."""
        return F.normalize(self.projection(features.to(next(self.projection.parameters()).dtype)), dim=-1)

    def _padded(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, context: torch.Tensor | None
    ) -> torch.Tensor:
        """Features [N, H] with a row of its own for each caption."""
        before = 0 if context is None else context.shape[-2]
        mask = torch.cat([attention_mask.new_ones(len(input_ids), before), attention_mask], dim=1)
        inputs = {"input_ids": input_ids} if context is None else {"inputs_embeds": self._behind(context, input_ids)}
        # some causal models count only what the mask shows, and would put EOS where the caption begins
        counted = self._takes_positions and self.causal
        position = torch.arange(mask.shape[1], device=mask.device).expand_as(mask) if counted else None
        return pool(self._run(mask, position, **inputs), mask, self.pooling)

    def _behind(self, context: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Input embeddings [N, P + T, H] of a context and the tokens behind it."""
        tokens = self.embed_tokens(input_ids)
        return torch.cat([context.expand(len(input_ids), -1, -1).to(tokens.dtype), tokens], dim=1)

    def _packed(
        self, input_ids: torch.Tensor, length: torch.Tensor, context: torch.Tensor | None, row_tokens: int
    ) -> torch.Tensor:
        """Features [N, H] of captions that share rows."""
        device = self._device
        if context is None:
            with timed("packing"):
                packed = pack(input_ids, length, row_tokens)
            inputs = {"input_ids": input_ids.reshape(-1)[packed.source].to(device, non_blocking=True)}
            packed = packed.to(device)
        else:
            # a context is a run of tokens below zero: one number for all captions, or one a caption
            before = context.shape[-2]
            number = torch.arange(len(input_ids) if context.ndim == 3 else 1, device=input_ids.device)
            stand_in = (-1 - number)[:, None].expand(len(input_ids), before)
            with timed("packing"):
                packed = pack(torch.cat([stand_in, input_ids], dim=1), length + before, row_tokens).to(device)
            embedded = self._behind(context, input_ids.to(device, non_blocking=True))
            inputs = {"inputs_embeds": embedded.reshape(-1, embedded.shape[-1])[packed.source]}
        hidden = self._run(packed.visible, packed.position, **inputs)
        return hidden.reshape(-1, hidden.shape[-1])[packed.feature]

    def _run(self, visible: torch.Tensor, position: torch.Tensor | None = None, **inputs: torch.Tensor) -> torch.Tensor:
        """Hidden states [R, L, H] of R rows of L tokens.

        Args:
            visible: attention mask [R, L], or [R, 1, L, L]; every token sees the prefix, if there is one, besides.
            position: of each token [R, L]; None counts them.
            inputs: ``input_ids`` [R, L] or ``inputs_embeds`` [R, L, H].
        """
        virtual = self.peft.virtual_tokens
        if position is not None:
            inputs["position_ids"] = position + virtual + self._first_position
        if not virtual:
            seen = self._form(visible, self.dtype) if visible.ndim == 4 else visible
            return self.backbone(attention_mask=seen, **inputs).last_hidden_state
        prefix = self.peft.prefix(self.backbone, len(visible), self.dtype)
        seen = torch.cat([visible.new_ones(*visible.shape[:-1], virtual), visible], dim=-1)
        if seen.ndim == 4:
            seen = self._form(seen, self.dtype)
        return self.language_model(attention_mask=seen, past_key_values=prefix, **inputs).last_hidden_state

    def _try_packing(self, row_tokens: int) -> None:
        """Find the form of mask with which packed captions come out as padded ones do, or stop packing."""
        config, device = self.language_model.config, self.language_model.device
        self.row_tokens = row_tokens
        if device.type == "meta":  # without values there is nothing to compare
            return
        self._window = min(probes.window(config), self.max_positions)
        self.row_tokens = rows = min(row_tokens, self._window)
        with evaluating(self), torch.no_grad():
            captions, length = probes.probe_captions(config.vocab_size, self._window)
            self._form = self._exact_form(captions.to(device), length.to(device), rows)

    def _exact_form(self, probe: torch.Tensor, length: torch.Tensor, row_tokens: int) -> Form:
        """The form of mask that gives captions of :func:`probes.probe_captions` the features of rows of their own."""
        mask = (torch.arange(probe.shape[1], device=probe.device) < length[:, None]).long()
        expected = self._padded(probe, mask, None).double()
        # what the words of a caption change in the feature of the same EOS is what attention brings there
        words = (expected[::2] - expected[1::2]).norm(dim=1).mean()
        limit = torch.maximum(2e-3 * words, 8 * torch.finfo(self.dtype).eps * expected.norm(dim=1))
        reason = "it takes no positions"
        for form in FORMS.values() if self._takes_positions else ():
            self._form = form
            try:
                found = self._packed(probe, length, None, row_tokens).double()
            except Exception as error:  # whatever a model raises that takes no such mask
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
                continue
            difference = (found - expected).norm(dim=1)
            if bool((difference <= limit).all()):
                return form
            reason = f"others in shared rows change its features by {float((difference / words).max()):.1%}"
        logger.warning("captions are not packed for %s: %s", self.source, reason)
        self.row_tokens = None
        return FORMS["bool"]

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the language model computes: that of its frozen weights."""
        return lowest_precision(self.language_model)


def unfreeze_parts(model: Any, parts: Sequence[str]) -> None:
    """Train further parts of a model that is otherwise frozen.

    Args:
        model: the language model.
        parts: any of ``embeddings`` (of the tokens), ``layer_norms``.

    Raises:
        BundleError: at another part.
    """
    for part in parts:
        if part not in get_args(Part):
            raise BundleError(f"unfreeze: expected any of {', '.join(get_args(Part))}, got {part!r}")
    if "embeddings" in parts:
        model.get_input_embeddings().requires_grad_(True)
    if "layer_norms" in parts:
        for module in model.modules():
            if is_norm(module):
                module.requires_grad_(True)


def _precision(dtype: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for weights of a precision."""
    require_one_of("dtype", dtype, PRECISIONS)
    if dtype != "4bit":
        return {"dtype": getattr(torch, dtype)}
    if not torch.cuda.is_available():
        raise BundleError("dtype: 4bit needs a CUDA GPU, and there is none; expected another precision")
    require("bitsandbytes", "quantize")
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": settings}
