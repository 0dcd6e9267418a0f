"""The protocol of networks: what training, checkpoints, zero-shot scores, heat maps and reports ask of one.

They ask by these names and never by a network's class, so that a network of a new kind takes part by answering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from cleft_bundle.networks.image_encoder import ImageEncoder
    from cleft_bundle.networks.peft_methods import PeftMethod


class Adapted(NamedTuple):
    """A method of parameter-efficient fine-tuning, and the model that it adapts."""

    method: PeftMethod
    model: nn.Module


class Embeddings(NamedTuple):
    """Images and captions in the shared space, and what turns their cosines into logits.

    Attributes:
        image: unit vectors [B, D].
        text: unit vectors [B, D], the caption of each image.
        logit_scale: the factor on cosines, after exponential and bound; a scalar tensor.
        logit_bias: a scalar tensor that is added; None where the network learns none.
    """

    image: torch.Tensor
    text: torch.Tensor
    logit_scale: torch.Tensor
    logit_bias: torch.Tensor | None = None


class Network(nn.Module):
    """A network that embeds or classifies images; the answers are those of one that has nothing special.

    Attributes:
        checkpoint: the kind of file that a training of it writes, see
            :data:`cleft_bundle.handlers.checkpoints.STATES`; empty where it is not trained.
        embeds_apart: whether images and captions of a batch can be embedded part by part, see :class:`DualNetwork`.
        embeds: whether :meth:`embed` can be asked.
    """

    checkpoint: ClassVar[str] = ""
    embeds_apart: ClassVar[bool] = False
    embeds: ClassVar[bool] = True

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Input of this network's head for images [B, 3, H, W]: unit vectors [B, D], or features."""
        raise NotImplementedError

    @property
    def tower(self) -> ImageEncoder | None:
        """The image tower whose projected tokens :meth:`embed` is the mean of, if there is one."""
        return None

    @property
    def patch_size(self) -> int | None:
        """Side in pixels of a patch, or of what a place of the last map stands for; None where there is none."""
        return None

    def calibrated_head(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Weights [K, D] and biases [K] that make calibrated logits of what :meth:`embed` gives.

        None where there are none, or none that can be looked at.
        """
        return None

    @property
    def backbones(self) -> dict[str, dict[str, str | None]]:
        """Backbones of the network: role to ``source`` and ``fingerprint``, None where nothing is frozen."""
        return {}

    @property
    def adapted(self) -> dict[str, Adapted]:
        """The models of towers that are adapted, by the names of :attr:`backbones`."""
        return {}

    @property
    def facts(self) -> dict[str, str]:
        """Facts about the network for the record of a run, besides its parameters."""
        return {}

    def penalty(self) -> torch.Tensor | float:
        """Term that is added to the training loss."""
        return 0.0

    def after_update(self) -> None:
        """Do what follows every update of the weights."""


class DualNetwork(Network):
    """A network that embeds images and captions in one space: what contrastive training and zero-shot scores ask.

    Attributes:
        scores_untrained: whether it scores images as it is built, because nothing in it starts at random.
    """

    embeds_apart = True
    scores_untrained: ClassVar[bool] = False
    logit_scale: torch.Tensor  # the logarithm of the scale
    logit_bias: torch.Tensor | None

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities, a scalar tensor."""
        raise NotImplementedError

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W] as unit vectors [B, D]."""
        raise NotImplementedError

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed captions [N, T] as unit vectors [N, D]."""
        raise NotImplementedError

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """:meth:`encode_image`."""
        return self.encode_image(image)

    def forward(
        self,
        image: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        caption_index: torch.Tensor | None = None,
    ) -> Embeddings:
        """Embed images and their captions.

        Args:
            image: float tensor [B, 3, H, W].
            input_ids: int64 tensor [N, T], the distinct captions of the batch.
            attention_mask: int64 tensor [N, T].
            caption_index: int64 tensor [B], which of the N captions belongs to each image. None where every image
                has its own, N = B.

        Returns:
            the embeddings of B images and of the caption of each.
        """
        return self.pair(self.encode_image(image), self.encode_text(input_ids, attention_mask), caption_index)

    def pair(self, image: torch.Tensor, text: torch.Tensor, caption_index: torch.Tensor | None = None) -> Embeddings:
        """Put embeddings of images [B, D] and of N captions [N, D] into the form that :meth:`forward` returns."""
        return Embeddings(image, text if caption_index is None else text[caption_index], self.scale, self.logit_bias)
