"""A CLEFT dual encoder on transformers alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel

from .configuration_cleft import CleftConfig


class CleftModel(PreTrainedModel):
    """The image tower and the text tower, whose embeddings meet in one space.

    Where the folder holds an adapter in place of a language model, :meth:`load_text_model` loads that model first.
    """

    config_class = CleftConfig

    def __init__(self, config: CleftConfig) -> None:
        super().__init__(config)
        self.vision_model: Any = AutoModel.from_config(_config(config.vision_config))
        self.text_model: Any = None
        if config.text_config is not None:
            self.text_model = _without_pooler(AutoModel.from_config(_config(config.text_config)))
        self.visual_projection = nn.Linear(self.vision_model.config.hidden_size, config.embedding_dim)
        self.text_projection = nn.Linear(config.hidden_size, config.embedding_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()

    def load_text_model(self, source: str | None = None, adapter: str | Path | None = None) -> CleftModel:
        """Load the language model and put the adapter on it.

        Args:
            source: hub id or folder of the language model; that of the config by default.
            adapter: folder of the adapter; the one beside this model by default.

        Raises:
            ValueError: where the embedding of a known caption is another one: it is not the model of the training.
        """
        model = _without_pooler(AutoModel.from_pretrained(source or self.config.text_source, dtype=torch.float32))
        folder = Path(adapter or Path(str(self.config.name_or_path), "adapter"))
        if folder.is_dir():
            from peft import PeftModel  # noqa: PLC0415

            model = PeftModel.from_pretrained(model, str(folder)).eval()
        self.text_model = model.eval()
        probe = self.config.text_probe
        tokens = torch.tensor([probe["input_ids"]])
        found = self.get_text_features(tokens, torch.tensor([probe["attention_mask"]]))[0]
        if not torch.allclose(found[: len(probe["embedding"])], torch.tensor(probe["embedding"]), atol=1e-3):
            raise ValueError(f"{source or self.config.text_source} is not the language model of the training")
        return self

    def tokenize(self, tokenizer: Any, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise N captions: words on the left, behind them at least one end of text that the mask leaves out."""
        rows = tokenizer(list(captions), truncation=True, max_length=self.config.caption_tokens - 1)["input_ids"]
        width = max(map(len, rows)) + 1
        end = int(tokenizer.eos_token_id)
        return {
            "input_ids": torch.tensor([[*row, *[end] * (width - len(row))] for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }

    @torch.no_grad()
    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, D] of images [B, 3, H, W]."""
        if self.config.pooling == "tokens_prenorm":
            tokens = self.vision_model.encoder(self.vision_model.embeddings(pixel_values)).last_hidden_state
            return F.normalize(self.visual_projection(tokens.mean(dim=1)), dim=-1)
        asked = "interpolate_pos_encoding" in inspect.signature(self.vision_model.forward).parameters
        resized = {"interpolate_pos_encoding": True} if asked else {}
        tokens = self.vision_model(pixel_values=pixel_values, **resized).last_hidden_state
        first = 1 + getattr(self.vision_model.config, "num_register_tokens", 0)
        pooled = tokens[:, 0] if self.config.pooling == "cls" else tokens[:, first:].mean(dim=1)
        return F.normalize(self.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors [N, D] of captions [N, T] of :meth:`tokenize`."""
        if self.text_model is None:
            raise ValueError(f"this folder holds an adapter of {self.config.text_source}: call load_text_model()")
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        length = attention_mask.sum(dim=1)
        if self.config.text_pooling == "mean":
            pooled = states.masked_fill(attention_mask[..., None] == 0, 0.0).sum(dim=1) / length[:, None]
        else:
            pooled = states[torch.arange(len(states)), length if self.config.text_pooling == "end" else 0]
        return F.normalize(self.text_projection(pooled), dim=-1)

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Scaled cosines [B, N] of images and captions."""
        image, text = self.get_image_features(pixel_values), self.get_text_features(input_ids, attention_mask)
        return self.logit_scale.exp() * image @ text.T


def _without_pooler(model: Any) -> Any:
    """Take away the layer of BERT's family that nothing here reads, and the weights of the folder lack."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _config(values: Any) -> Any:
    values = dict(values)
    return AutoConfig.for_model(values.pop("model_type"), **values)
