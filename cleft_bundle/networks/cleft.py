"""CLEFT: an image tower and a text tower that meet in one space."""

from __future__ import annotations

import math

import torch
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.protocol import Adapted, DualNetwork, Embeddings
from cleft_bundle.networks.text.prompt_learner import PromptLearner
from cleft_bundle.networks.text.text_encoder import TextEncoder
from cleft_bundle.networks.weight_kinds import mark_weights
from cleft_bundle.parts import timed


class CLEFT(DualNetwork):
    """The dual encoder that contrastive pre-training trains.

    Args:
        image_encoder: the image tower.
        text_encoder: the text tower, of the same embedding width.
        temperature: initial temperature; the logit scale starts at ``ln(1 / temperature)``.
        max_logit_scale: bound on the learnt scale (CLIP's 100), see :meth:`clamp_scale`. None leaves it free, as
            CLEFT's release does.
        logit_bias: start of a learnt bias, for :class:`cleft_bundle.losses.SigmoidLoss`. None: there is none.

    Raises:
        BundleError: where the towers differ in embedding width, or a temperature or bound is not above 0.

    Source: Du, Chang, Dvornek, "CLEFT", MICCAI 2024; Radford et al., "CLIP", ICML 2021; Zhai et al., "Sigmoid Loss
    for Language Image Pre-Training", ICCV 2023 (``logit_bias``).

    Examples:
        >>> vision = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...           "image_size": 28, "patch_size": 14}
        >>> language = {"model_type": "gpt2", "vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
        >>> text_encoder = TextEncoder(language, embedding_dim=8, peft="none")
        >>> network = CLEFT(ImageEncoder(vision, embedding_dim=8), text_encoder, temperature=0.07)
        >>> network.encode_image(torch.zeros(2, 3, 28, 28)).shape, round(float(network.scale.detach()), 2)
        (torch.Size([2, 8]), 14.29)
    """

    checkpoint = "trained"

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        temperature: float = 0.07,
        max_logit_scale: float | None = 100.0,
        logit_bias: float | None = None,
    ) -> None:
        super().__init__()
        mark_weights(self, 1)
        widths = image_encoder.embedding_dim, text_encoder.embedding_dim
        if widths[0] != widths[1]:
            raise BundleError(
                f"embedding_dim: the towers meet in one space, but embed {widths[0]} and {widths[1]} wide"
            )
        for name, value in (("temperature", temperature), ("max_logit_scale", max_logit_scale)):
            if value is not None and value <= 0:
                raise BundleError(f"{name}: expected a number above 0, got {value}")
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self.max_logit_scale = max_logit_scale
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(float(logit_bias)))
        self.prompt: PromptLearner | None = None
        methods = image_encoder.peft, text_encoder.peft
        self._trained = [
            name for name, p in self.named_parameters() if p.requires_grad or any(m.keeps(name) for m in methods)
        ]

    def learn_prompt(self, prompt: PromptLearner) -> CLEFT:
        """Freeze both towers and let ``prompt`` stand before every caption from now on; return this network."""
        self.requires_grad_(False)
        self.prompt = prompt
        return self

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """By name, the parameters in which this network differs from the backbones that it was built from.

        These are the ones that pre-training trains, frozen again or not, and the learnt prompt where there is one.
        """
        own = set(self._trained)
        return {name: p for name, p in self.named_parameters() if name in own or name.startswith("prompt.")}

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities: ``exp(logit_scale)``, at most ``max_logit_scale``. A scalar tensor.

        The bound stops the value but not the gradient, so that a parameter beyond it can come back.
        """
        if self.max_logit_scale is None:
            return self.logit_scale.exp()
        bounded = self.logit_scale.clamp(max=math.log(self.max_logit_scale))
        return (self.logit_scale + (bounded - self.logit_scale).detach()).exp()

    @property
    def tower(self) -> ImageEncoder | None:
        """The image tower whose projected tokens :meth:`embed` averages, if there is one."""
        return self.image_encoder.tower

    @property
    def patch_size(self) -> int | None:
        """Patch size of the image tower, in pixels."""
        return self.image_encoder.patch_size

    @property
    def backbones(self) -> dict[str, dict[str, str | None]]:
        """``image tower`` and ``language model``."""
        towers: dict[str, ImageEncoder | TextEncoder] = {
            "image tower": self.image_encoder,
            "language model": self.text_encoder,
        }
        return {name: {"source": tower.source, "fingerprint": tower.fingerprint} for name, tower in towers.items()}

    @property
    def adapted(self) -> dict[str, Adapted]:
        """``language model``, and ``image tower`` where that has adapters."""
        language = Adapted(self.text_encoder.peft, self.text_encoder.backbone)
        return {"language model": language, **self.image_encoder.adapted}

    @property
    def facts(self) -> dict[str, str]:
        """``peft`` and ``image_peft``, the methods by which the towers are adapted, and ``text_pooling``."""
        text, image = self.text_encoder, self.image_encoder
        return {"peft": text.peft.name, "image_peft": image.peft.name, "text_pooling": text.pooling}

    def after_update(self) -> None:
        """:meth:`clamp_scale`."""
        self.clamp_scale()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bring the parameter of the scale back to its bound, as CLIP's training does after every update."""
        if self.max_logit_scale is not None and self.logit_scale.requires_grad:
            self.logit_scale.clamp_(max=math.log(self.max_logit_scale))

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W] as unit vectors [B, D]; embeddings [B, D] computed before are taken as they are."""
        if image.ndim == 2:
            return image
        with timed("image tower, forward"):
            return self.image_encoder(image)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed captions [N, T] as unit vectors [N, D]; see :class:`TextEncoder` on the mask.

        A learnt prompt stands before each caption; one that has a context per class wants N classes in their order.
        """
        with timed("text tower, forward"):
            return self.text_encoder(input_ids, attention_mask, self._context(input_ids))

    def _context(self, input_ids: torch.Tensor) -> torch.Tensor | None:
        """The learnt prompt before captions [N, T], if there is one."""
        context = None if self.prompt is None else self.prompt()
        if context is not None and context.ndim == 3 and len(context) != len(input_ids):
            raise BundleError(
                f"the learnt prompt has a context for each of {len(context)} classes, but {len(input_ids)} captions "
                "came: a context per class goes with one caption per class"
            )
        return context

    def forward(
        self,
        image: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        caption_index: torch.Tensor | None = None,
    ) -> Embeddings:
        """Embed images and their captions.

        Args:
            image: float tensor [B, 3, H, W], or embeddings [B, D] that were computed before.
            input_ids: int64 tensor [N, T], the distinct captions of the batch.
            attention_mask: int64 tensor [N, T].
            caption_index: int64 tensor [B], which of the N captions belongs to each image. None where every image
                has its own, N = B.

        Returns:
            image embeddings [B, D], text embeddings [B, D], the clamped logit scale and, where the network has one, the
            logit bias.
        """
        embedded = self.encode_image(image)
        with timed("text tower, forward"):
            features = self.text_encoder.features(input_ids, attention_mask, self._context(input_ids))
            if caption_index is not None:
                features = features[caption_index]  # before the projection: batch norm counts a caption once per image
            return self.pair(embedded, self.text_encoder.project(features))

    def penalty(self) -> torch.Tensor | float:
        """Term that the adapters of both towers add to the training loss, see :meth:`TextEncoder.penalty`."""
        return self.text_encoder.penalty() + self.image_encoder.penalty()
