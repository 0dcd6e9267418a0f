"""Figures and thumbnails, each an SVG or PNG as a data URI that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

COLOURS = {"train": "#3b6ea5", "validation": "#e08a2e", "test": "#5a9a5a"}
GREY = "#c9ced6"
_STYLE: dict[Any, Any] = {
    **{"svg.hashsalt": "cleft_bundle", "text.parse_math": False, "font.size": 9},
    **{"axes.spines.top": False, "axes.spines.right": False},
}


def draw(function: Callable[..., None], *arguments: Any, size: tuple[float, float]) -> str:
    """Let a function draw on a new figure of that size in inches, and give it as a data URI."""
    return svg_uri(draw_svg(function, *arguments, size=size))


def draw_svg(function: Callable[..., None], *arguments: Any, size: tuple[float, float]) -> str:
    """Let a function draw on a new figure of that size in inches, and give it as the text of an SVG file."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=72)
        canvas = FigureCanvasSVG(figure)
        function(figure, *arguments)
        content = io.BytesIO()
        canvas.print_svg(content, metadata={"Date": None})  # savefig would draw it twice
    return content.getvalue().decode()


def svg_uri(svg: str) -> str:
    """The text of an SVG file as a data URI."""
    return _uri("svg+xml", svg.encode())


def thumbnail(image: torch.Tensor, side: int = 224) -> str:
    """A grey image [1, H, W] or colours [3, H, W] of 0 to 1 as a PNG of `side` pixels at most."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return _uri("png", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
