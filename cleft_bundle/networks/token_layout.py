"""Measured outputs of an image backbone: tokens or a map, of which grid, and how they can be pooled."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from cleft_bundle.errors import BundleError, one_line

Pooling = Literal["tokens_prenorm", "cls", "mean_patches", "pooled"]

_SIDE = 32  # pixels: no smaller image is measured, as hierarchical backbones divide a side by this in all
_COARSER = (1, 2, 4, 8, 16, 32)  # by which hierarchical backbones join patches
_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm")


@dataclass(frozen=True)
class TokenLayout:
    """Layout of the outputs of a backbone.

    Args:
        stride: side in pixels of what one token, or one place of the map, stands for.
        prefix: tokens before those of the patches: class, register and distillation tokens.
        is_map: whether the last hidden state is a map [B, C, h, w] and not a row of tokens [B, T, C].
        must_divide: whether pixels beyond the last whole stride would be left out; others fill up the border.
        poolings: those that are defined, to the width of what they give.
    """

    stride: int
    prefix: int
    is_map: bool
    must_divide: bool
    poolings: dict[str, int]

    def check_size(self, *sides: int) -> None:
        """Refuse images whose border the backbone would not see.

        Args:
            sides: in pixels.

        Raises:
            BundleError: names the nearest two sides that are seen in full.
        """
        for side in sides if self.must_divide else ():
            if side < self.stride or side % self.stride:
                below = side // self.stride * self.stride
                nearest = f"{below} or {below + self.stride}" if below else f"{self.stride}"
                raise BundleError(
                    f"image_size: {side} px is not a multiple of the image tower's {self.stride} px patches, so that "
                    f"its last {side - below} px would not be seen; expected {nearest}"
                )


def tokens_before_norm(backbone: Any, image: torch.Tensor) -> torch.Tensor:
    """Tokens [B, T, C] of images [B, 3, H, W] after the last block of a DINOv2-like model, before the final norm."""
    embed = backbone.embeddings
    return backbone.encoder(embed(image, **interpolation(embed.forward))).last_hidden_state


def run_backbone(backbone: Any, image: torch.Tensor) -> Any:
    """Outputs of a backbone for images [B, 3, H, W], its position embeddings interpolated to their size."""
    return backbone(pixel_values=image, **interpolation(backbone.forward))


def takes_interpolation(forward: Any) -> bool:
    """True for a model that interpolates its position embeddings only when asked to, as all but DINOv2 do."""
    return "interpolate_pos_encoding" in inspect.signature(forward).parameters


def interpolation(forward: Any) -> dict[str, bool]:
    """The argument by which a model is asked to, where it takes one."""
    return {"interpolate_pos_encoding": True} if takes_interpolation(forward) else {}


@torch.no_grad()
def measure_layout(backbone: nn.Module) -> TokenLayout:
    """Run a backbone on small images and see what it gives.

    Args:
        backbone: a vision model of transformers; on the device ``meta``, shapes alone are looked at.

    Raises:
        BundleError: where it takes no images [B, 3, H, W], or its tokens are no grid.
    """
    name, training = type(backbone).__name__, backbone.training
    unit = getattr(backbone.config, "patch_size", None)
    unit = unit if isinstance(unit, int) else _SIDE
    side = unit * -(-_SIDE // unit)
    if hasattr(backbone.config, "window_size"):  # Swin makes its windows smaller for a small image, and leaves them so
        backbone, side = copy.deepcopy(backbone), 2 * side
    backbone.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            small, large = (run_backbone(backbone, _probe(backbone, side * times)) for times in (1, 2))
            hidden = small.last_hidden_state
            stride, prefix = _grid(name, unit, side, hidden, large.last_hidden_state)
            must_divide = _places(backbone, side + 1) in (hidden.shape[1:], None)
            pooled = getattr(small, "pooler_output", None)
            before_norm = hidden.ndim == 3 and _has_tokens_before_norm(backbone, _probe(backbone, side), hidden)
    except BundleError:
        raise
    except Exception as error:  # whatever a model raises that wants other inputs
        raise BundleError(f"image_backbone: {name} takes no images [B, 3, H, W]: {one_line(error, 200)}") from error
    finally:
        backbone.train(training)
    width = hidden.shape[1] if hidden.ndim == 4 else hidden.shape[2]
    poolings = {
        **({"tokens_prenorm": width} if before_norm else {}),
        **({"cls": width} if prefix else {}),
        "mean_patches": width,
        **({"pooled": pooled.flatten(1).shape[1]} if isinstance(pooled, torch.Tensor) else {}),
    }
    return TokenLayout(stride, prefix, hidden.ndim == 4, must_divide, poolings)


def _probe(backbone: nn.Module, side: int) -> torch.Tensor:
    """An image [1, 3, S, S] whose patches differ."""
    device = next(backbone.parameters()).device
    return torch.arange(3 * side * side, device=device).reshape(1, 3, side, side).float().sin()


def _grid(name: str, unit: int, side: int, small: torch.Tensor, large: torch.Tensor) -> tuple[int, int]:
    """Stride and number of prefix tokens, from the outputs for images of two sizes."""
    if small.ndim == 4:
        return side // small.shape[2], 0
    for stride in (unit * times for times in _COARSER):
        patches, more = (side // stride) ** 2, (2 * side // stride) ** 2
        if patches and large.shape[1] - small.shape[1] == more - patches and small.shape[1] >= patches:
            return stride, small.shape[1] - patches
    raise BundleError(
        f"image_backbone: {name} gives {small.shape[1]} and {large.shape[1]} tokens for images of {side} and "
        f"{2 * side} px, which is no grid of patches"
    )


def _places(backbone: nn.Module, side: int) -> torch.Size | None:
    """Shape of the last hidden state of one image; None where a backbone refuses this size."""
    try:
        return run_backbone(backbone, _probe(backbone, side)).last_hidden_state.shape[1:]
    except Exception:  # whatever a model raises at a size that it does not take
        return None


def _has_tokens_before_norm(backbone: Any, image: torch.Tensor, hidden: torch.Tensor) -> bool:
    """Whether :func:`tokens_before_norm` gives what a final norm turns into the last hidden state."""
    norm = next((getattr(backbone, name) for name in _NORMS if hasattr(backbone, name)), None)
    if norm is None or not (hasattr(backbone, "embeddings") and hasattr(backbone, "encoder")):
        return False
    try:
        normed = norm(tokens_before_norm(backbone, image))
    except Exception:  # whatever a model raises whose parts fit together in another way
        return False
    if normed.shape != hidden.shape:
        return False
    return normed.is_meta or torch.allclose(normed, hidden, rtol=1e-3, atol=1e-4)
