"""A pair of towers that transformers has no class for, such as a ViT and a BERT, read and written as open_clip does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from cleft_bundle.networks.open_clip.towers import RULES
from cleft_bundle.networks.open_clip.weights import Weights, joined_names, part_of, restored_by, split_pool
from cleft_bundle.open_clip_files import CONFIG, WEIGHTS


@dataclass(frozen=True)
class Origin:
    """A checkpoint of open_clip without its weights.

    Args:
        values: of ``open_clip_config.json``.
        names: of its weights, those of the text tower below ``text.``.
    """

    values: Mapping[str, Any]
    names: Sequence[str]


class OpenClipModel(nn.Module):
    """An image and a text tower that transformers has no class for as a pair, such as a ViT and a BERT.

    Args:
        vision: model of transformers that pools its tokens, or whose first one is the feature.
        text: the same for tokens.
        visual_projection: into the shared space.
        text_projection: into the shared space.
        logit_scale: logarithm of the scale.
        logit_bias: of the sigmoid loss; None where there is none.
        origin: the checkpoint, in whose form it is written.
    """

    def __init__(
        self,
        vision: Any,
        text: Any,
        visual_projection: nn.Module,
        text_projection: nn.Module,
        logit_scale: torch.Tensor,
        logit_bias: torch.Tensor | None,
        origin: Origin,
    ) -> None:
        super().__init__()
        self.vision_model, self.text_model = vision, text
        self.visual_projection: Any = visual_projection
        self.text_projection: Any = text_projection
        self.logit_scale = nn.Parameter(logit_scale)
        self.origin = origin
        self.logit_bias = None if logit_bias is None else nn.Parameter(logit_bias)
        # how a text is padded and read depends on its tower
        self.config = SimpleNamespace(
            model_type=text.config.model_type, vision_config=vision.config, text_config=text.config, origin=origin
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.logit_scale.device

    def get_image_features(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """Features [B, D] of images [B, 3, H, W]."""
        output = self.vision_model(pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return self.visual_projection(pooled(output))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Features [N, D] of tokens [N, T]."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.text_projection(pooled(self.text_model(input_ids=input_ids, attention_mask=mask)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder that ``open_clip.create_model("local-dir:FOLDER")`` takes, but for its tokenizer.

        Args:
            folder: that exists.
        """
        model = dict(self.origin.values["model_cfg"]) | {"custom_text": True}
        weights = self._visual() | self._text() | {"logit_scale": self.logit_scale}
        if self.logit_bias is not None:
            weights["logit_bias"] = self.logit_bias
            model["init_logit_bias"] = float(self.logit_bias.detach())
        values = {**self.origin.values, "model_cfg": model}
        (Path(folder) / CONFIG).write_text(json.dumps(values, indent=2), encoding="utf-8")
        stored = {name: value.detach().clone().contiguous().cpu() for name, value in weights.items()}
        save_file(stored, Path(folder) / WEIGHTS[0], {"format": "pt"})

    def _visual(self) -> Weights:
        """Weights of ``visual``."""
        names = part_of(dict.fromkeys(self.origin.names, torch.empty(0)), "visual.")
        found = {}
        if "proj" in names:
            found["visual.proj"] = self.visual_projection.weight.T
        elif part_of(names, "head."):
            found["visual.head.proj.weight"] = self.visual_projection.weight
        names.pop("proj", None)
        trunk = part_of(names, "trunk.")
        kind, given = self.config.vision_config.model_type, dict(self.vision_model.named_parameters())
        tower = restored_by(given, RULES[kind], joined_names(trunk or names))
        if kind == "siglip_vision_model":
            tower = split_pool(tower) | {"pos_embed": tower["pos_embed"][None]}
        return found | {f"visual.{'trunk.' if trunk else ''}{name}": value for name, value in tower.items()}

    def _text(self) -> Weights:
        """Weights of ``text``."""
        given = dict(self.text_model.named_parameters())
        kind = self.config.text_config.model_type
        if kind not in RULES:  # a model of transformers as it is
            tower = {f"transformer.{name}": value for name, value in given.items()}
            tower |= {f"proj.{name}": value for name, value in self.text_projection.named_parameters()}
        else:
            names = part_of(dict.fromkeys(self.origin.names, torch.empty(0)), "text.")
            names = {name: value for name, value in names.items() if not name.startswith("text_projection")}
            tower = restored_by(given, RULES[kind], names)
            if kind == "clip_text_model":
                tower["text_projection"] = self.text_projection.weight.T
            else:
                tower |= {f"text_projection.{name}": given[f"head.{name}"] for name in ("weight", "bias")}
        return {f"text.{name}": value for name, value in tower.items()}


def pooled(output: Any) -> torch.Tensor:
    """The pooled feature [N, H] of what a transformer gives; the first token's where it pools nothing."""
    found = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if found is None else found
