"""Dual encoders of others (CLIP, SigLIP, SigLIP 2 and their like), to be trained and evaluated as CLEFT is."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.networks.backbones import describe_source, load_backbone
from cleft_bundle.networks.cleft import CLEFT
from cleft_bundle.networks.dual_towers import DualImageEncoder, DualTextEncoder, cut_patches, pooled
from cleft_bundle.networks.image_encoder import takes_interpolation
from cleft_bundle.networks.open_clip.checkpoint import load_open_clip
from cleft_bundle.networks.open_clip.pair import OpenClipModel
from cleft_bundle.networks.open_clip.tokenizer import load_open_clip_tokenizer
from cleft_bundle.networks.peft_methods import Adapters
from cleft_bundle.networks.text.text_encoder import Part
from cleft_bundle.networks.weight_names import renamed
from cleft_bundle.open_clip_files import is_open_clip

_NEEDED = ("get_image_features", "get_text_features", "logit_scale", "vision_model", "text_model")
_CLIPS_BOUND = 100.0


class DualEncoder(CLEFT):
    """A Hugging Face model that embeds images and captions, trained and evaluated as CLEFT is.

    Its embeddings are those of the model's own ``get_image_features`` and ``get_text_features``, normalised, which is
    tried when it is built.

    Args:
        source: hub id (``google/medsiglip-448``, ``openai/clip-vit-base-patch32``), local folder, or config values with
            ``model_type`` for random weights. An open_clip checkpoint is a folder with ``open_clip_config.json``, or
            ``hf-hub:OWNER/NAME``, see :func:`cleft_bundle.networks.open_clip.load_open_clip`.
        seed: seed of random weights.
        peft: how the text model is adapted: ``lora``, ``dora``, ``ia3``, ``adalora``, ``none`` (frozen) or ``full``, or
            a config of the peft library, such as ``peft.LoraConfig``.
        image_peft: the same for the vision model; None is ``full``.
        unfreeze: further parts of the text model that are trained: ``embeddings``, ``layer_norms``.
        frozen_blocks: where the vision model is trained in full: freeze its embeddings and this many of its first
            blocks.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        temperature: initial temperature in place of the model's own.
        logit_bias: start of a learnt bias for :class:`cleft_bundle.losses.SigmoidLoss`, where the model brings none.

    Raises:
        BundleError: where the model cannot be loaded or is no dual encoder, a method does not go with it, or it brings
            a bias of its own.

    Source: Radford et al., "CLIP", ICML 2021; Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023;
    Tschannen et al., "SigLIP 2", 2025.
    """

    scores_untrained = True
    image_encoder: DualImageEncoder
    text_encoder: DualTextEncoder  # type: ignore[assignment]
    config: Any

    def __init__(
        self,
        source: str | Mapping[str, Any],
        seed: int = 0,
        peft: Any = "lora",
        image_peft: Any = None,
        unfreeze: Sequence[Part] = (),
        frozen_blocks: int = 0,
        gradient_checkpointing: bool = False,
        temperature: float | None = None,
        logit_bias: float | None = None,
    ) -> None:
        model: Any = (
            load_open_clip(source) if is_open_clip(source) else load_backbone(source, "dual_encoder", seed=seed)
        )
        name = describe_source(source)
        if missing := [part for part in _NEEDED if not hasattr(model, part)]:
            raise BundleError(
                f"dual_encoder: {name!r} is a {type(model).__name__} without {missing[0]}: expected one "
                "that embeds images and captions, such as CLIP or SigLIP"
            )
        visual = getattr(model, "visual_projection", nn.Identity())
        width = int(getattr(visual, "out_features", model.vision_model.config.hidden_size))
        shared: dict[str, Any] = {"gradient_checkpointing": gradient_checkpointing, "source": name, "seed": seed}
        scale, bias = _scale_and_bias(model, name, temperature, logit_bias, isinstance(source, Mapping))
        # CLIP was trained under a bound; SigLIP was not, and a model that is beyond it keeps its own scale
        bound = None if bias is not None or scale > math.log(_CLIPS_BOUND) + 1e-4 else _CLIPS_BOUND
        super().__init__(
            DualImageEncoder(
                model.vision_model,
                visual,
                width,
                image_peft,
                frozen_blocks,
                pretrained=not isinstance(source, Mapping),
                **shared,
            ),
            DualTextEncoder(  # type: ignore[arg-type]  # it gives the same answers
                model.text_model,
                getattr(model, "text_projection", nn.Identity()),
                width,
                peft,
                unfreeze,
                reads_padding=_reads_padding(model.config),
                **shared,
            ),
            max_logit_scale=bound,
            logit_bias=bias,
        )
        with torch.no_grad():
            self.logit_scale.fill_(scale)
        keeps = self.image_encoder.peft.keeps
        self._trained += [n for n, _ in self.named_parameters() if keeps(n) and n not in self._trained]
        self.source, self.config = name, model.config
        _check_embeddings(model, self, name)

    @property
    def image_size(self) -> int:
        """Side of its images in pixels, as it was pre-trained."""
        return self.image_encoder.image_size

    def library_model(self) -> Any:
        """The model of the library with the weights of this network, adapters within them, in evaluation mode.

        Its ``save_pretrained`` writes a folder that ``AutoModel.from_pretrained`` takes; one that open_clip takes where
        transformers has no class for such a pair of towers. A learnt prompt is no part of it.

        Raises:
            BundleError: where the library's class has no place for a bias that this network has learnt.
        """
        text = copy.deepcopy(self.text_encoder)
        if isinstance(text.peft, Adapters):
            text.backbone = text.backbone.merge_and_unload()
        image = self.image_encoder.merged()
        if not isinstance(self.config, PreTrainedConfig):
            return self._pair(image, text)
        model: Any = AutoModel.from_config(self.config)
        if self.logit_bias is not None and not hasattr(model, "logit_bias"):
            raise BundleError(f"dual_encoder: a {type(model).__name__} has no place for the logit bias that was learnt")
        parts = {
            "vision_model": image.backbone,
            "text_model": text.backbone,
            "visual_projection": image.projection,
            "text_projection": text.projection,
        }
        for name, part in parts.items():
            if hasattr(model, name):
                names = [n for n, _ in [*part.named_parameters(), *part.named_buffers()]]
                getattr(model, name).load_state_dict(renamed(part.state_dict(), names))
        with torch.no_grad():
            model.logit_scale.fill_(float(self.logit_scale))
            if self.logit_bias is not None:
                model.logit_bias.fill_(float(self.logit_bias))
        return model.eval()

    def _pair(self, image: DualImageEncoder, text: DualTextEncoder) -> OpenClipModel:
        image, bias = copy.deepcopy(image), self.logit_bias
        return OpenClipModel(
            image.backbone,
            text.backbone,
            image.projection,
            text.projection,
            self.logit_scale.detach().clone(),
            None if bias is None else bias.detach().clone(),
            self.config.origin,
        ).eval()


class DualEncoderTokenizer:
    """Tokenise captions as a dual encoder's own processor does.

    CLIP pads to the longest caption. SigLIP has no mask: its text feature stands at the end of a window of full length,
    and captions that are padded less come out near chance; it was trained on lower case.

    Args:
        source: hub id or local folder of the tokenizer, or an open_clip checkpoint.
        network: the dual encoder, whose window it fills.
        room: how much of the window a learnt context will take, tokens.
        after: words that come before every caption from elsewhere, such as a learnt context. The tokens are those that
            follow them.
        special: False leaves out the tokens that begin and end a text.

    Raises:
        BundleError: where the tokenizer cannot be loaded, or the window leaves no room for a word.
    """

    def __init__(self, source: str, network: DualEncoder, room: int = 0, after: str = "", special: bool = True) -> None:
        try:
            own = is_open_clip(source)
            self.tokenizer = load_open_clip_tokenizer(source) if own else AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = one_line(error)
            raise BundleError(f"dual_encoder: the tokenizer of {source!r} cannot be loaded: {reason}") from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._built_from = source, network
        self.special = special
        self.max_length = network.text_encoder.max_positions - room
        if self.max_length < 3:
            raise BundleError(
                f"context_length: {room} leaves no room for a word in the window of {self.max_length + room}"
            )
        self.lower = _reads_padding(network.config)
        self.fills = self.lower and special
        self.after = f"{after} " if after else ""
        self._lead, self._skipped = self._place(after) if after else (0, 0)

    def __call__(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise N captions: ``input_ids`` and ``attention_mask``, int64 tensors [N, T]."""
        rows = self._rows(captions, truncation=True, max_length=self.max_length + self._skipped)
        width = self.max_length if self.fills else max(map(len, rows))
        input_ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id))
        attention_mask = torch.zeros_like(input_ids)
        left = self.tokenizer.padding_side == "left"
        for index, row in enumerate(rows):
            start = width - len(row) if left else 0
            input_ids[index, start : start + len(row)] = torch.tensor(row)
            attention_mask[index, start : start + len(row)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    @property
    def window(self) -> str:
        """The limit of the model."""
        return f"the model's window of {self.max_length} tokens"

    @property
    def words(self) -> DualEncoderTokenizer:
        """This tokenizer without the tokens that begin and end a text, for the words that a context starts from."""
        return DualEncoderTokenizer(*self._built_from, special=False)

    def behind(self, words: str, length: int) -> DualEncoderTokenizer:
        """The tokenizer of captions behind a learnt context.

        Args:
            words: what the context says before it is learnt.
            length: number of tokens that the context takes.
        """
        return DualEncoderTokenizer(*self._built_from, after=words, room=length)

    def is_cut(self, captions: Sequence[str]) -> list[bool]:
        """True for each caption that is longer than the window, so that its end is not read."""
        return [len(row) > self.max_length for row in self._rows(captions, verbose=False)]

    def _rows(self, captions: Sequence[str], **how: Any) -> list[list[int]]:
        """Tokens of captions, without those of the words before them."""
        texts = [self.after + caption for caption in captions]
        texts = [text.lower() for text in texts] if self.lower else texts
        rows = self.tokenizer(texts, add_special_tokens=self.special, **how)["input_ids"]
        return [row[: self._lead] + row[self._lead + self._skipped :] for row in rows]

    def _place(self, words: str) -> tuple[int, int]:
        """How many tokens come before words that begin a text, and how many they are."""
        words = words.lower() if self.lower else words
        whole, alone = (self.tokenizer(words, add_special_tokens=special)["input_ids"] for special in (True, False))
        starts = range(len(whole) - len(alone) + 1)
        return next((start for start in starts if whole[start : start + len(alone)] == alone), 0), len(alone)


def _scale_and_bias(
    model: Any, name: str, temperature: float | None, logit_bias: float | None, random: bool
) -> tuple[float, float | None]:
    """Logarithm of the scale, and the bias, that training starts from: those given, or the model's own."""
    own = None if getattr(model, "logit_bias", None) is None else float(model.logit_bias.detach())
    if logit_bias is not None and own is not None and not random:
        raise BundleError(
            f"logit_bias: {name!r} was trained with a sigmoid loss, and brings its own scale and bias: leave "
            "loss_sigmoid.json out"
        )
    if temperature is not None and temperature <= 0:
        raise BundleError(f"temperature: expected a number above 0, got {temperature}")
    scale = float(model.logit_scale.detach()) if temperature is None else -math.log(temperature)
    return scale, own if logit_bias is None else logit_bias


def _reads_padding(config: Any) -> bool:
    return str(config.model_type).startswith("siglip")


@torch.no_grad()
def _check_embeddings(model: Any, network: DualEncoder, name: str) -> None:
    """Refuse a model whose own embeddings of an image and a caption come out otherwise than those of the towers."""
    if model.device.type == "meta":  # without values there is nothing to compare
        return
    image_encoder, text_encoder = network.image_encoder, network.text_encoder
    given, config = torch.Generator().manual_seed(0), model.config.text_config
    tokens = torch.randint(3, config.vocab_size, (1, text_encoder.max_positions), generator=given)
    tokens[0, -1] = min(getattr(config, "eos_token_id", None) or 0, config.vocab_size - 1)
    training = network.training
    network.eval()
    try:
        flexible = takes_interpolation(model.get_image_features)
        side = 2 * image_encoder.patch_size if flexible or image_encoder.takes_patches else image_encoder.image_size
        image = torch.randn(1, 3, side, side, generator=given)
        inputs = patches_of(image, image_encoder.patch_size) if image_encoder.takes_patches else {"pixel_values": image}
        how = {"interpolate_pos_encoding": True} if flexible else {}
        pairs = {
            "image": (model.get_image_features(**inputs, **how), network.encode_image(image)),
            "text": (
                model.get_text_features(input_ids=tokens),
                network.encode_text(tokens, torch.ones_like(tokens)),
            ),
        }
    finally:
        network.train(training)
    for what, (own, ours) in pairs.items():
        feature = own if isinstance(own, torch.Tensor) else pooled(own)
        if feature.shape != ours.shape or (F.normalize(feature, dim=-1) - ours).norm() > 1e-4:
            raise BundleError(f"dual_encoder: {name!r} makes its {what} embeddings in a way that is not known here")


def patches_of(image: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
    """Images [B, 3, H, W] as SigLIP 2 takes them: patches [B, N, size * size * 3] in rows, all of them valid."""
    rows, columns = image.shape[2] // size, image.shape[3] // size
    patches = cut_patches(image, size)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int32, device=image.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * len(image), device=image.device),
    }
