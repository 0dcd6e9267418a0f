"""Settings of a CLEFT dual encoder."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class CleftConfig(PretrainedConfig):
    """Configuration of :class:`CleftModel`.

    Args:
        vision_config: config of the image tower, with ``model_type``.
        text_config: config of the language model; None where an adapter goes with ``text_source``.
        text_source: hub id or name of the language model that the adapter belongs to.
        text_probe: tokens of a caption, and the begin of the embedding that they must have.
        embedding_dim: width D of the shared space.
        pooling: of the image tower.
        hidden_size: width of the language model.
        caption_tokens: tokens of a caption, its end included.
        text_pooling: ``end``, ``cls`` or ``mean``: which states of the language model stand for a caption.
        kwargs: of transformers.
    """

    model_type = "cleft"

    def __init__(
        self,
        vision_config: dict[str, Any] | None = None,
        text_config: dict[str, Any] | None = None,
        text_source: str = "",
        text_probe: dict[str, Any] | None = None,
        embedding_dim: int = 512,
        pooling: str = "tokens_prenorm",
        hidden_size: int = 768,
        caption_tokens: int = 64,
        text_pooling: str = "end",
        **kwargs: Any,
    ) -> None:
        self.vision_config = vision_config
        self.text_config = text_config
        self.text_source = text_source
        self.text_probe = text_probe or {}
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.hidden_size = hidden_size
        self.caption_tokens = caption_tokens
        self.text_pooling = text_pooling
        super().__init__(**kwargs)
