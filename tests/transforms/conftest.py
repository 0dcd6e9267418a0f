"""Drawn mammograms and chests of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch


@dataclass
class Mammogram:
    """A drawn mammogram [H, W] with masks of its breast and of all that is no breast."""

    image: np.ndarray
    breast: np.ndarray
    marker: np.ndarray

    @property
    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.image)[None].float()


def draw(
    shape: tuple[int, int] = (400, 300),
    chest_wall: str = "left",
    background: float = 0.0,
    noise: float = 0.0,
    fat: float = 0.3,
    implant: bool = False,
    top_edge: bool = False,
    labels: bool = True,
    seed: int = 0,
) -> Mammogram:
    """A half ellipse of fat with glands, at a side, and letters in the corner away from it."""
    rng = np.random.default_rng(seed)
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    center = 0.3 if top_edge else 0.5
    y, x = (rows / height - center) / 0.38, columns / width / 0.6
    breast = y**2 + x**2 < 1
    image = np.full(shape, background)
    image[breast] = fat
    image[(y / 0.6) ** 2 + ((x - 0.3) / 0.5) ** 2 < 1] = 0.7
    if implant:
        image[(y / 0.7) ** 2 + ((x - 0.4) / 0.4) ** 2 < 1] = 1.0
    if top_edge:  # the pectoral muscle of an oblique view, up to the upper border
        muscle = columns / width < 0.35 - rows / height
        image[muscle], breast = 0.8, breast | muscle
    marker = np.zeros(shape, bool)
    if labels:
        marker[height // 20 : height // 8, -width // 5 : -width // 12] = True
        marker[height // 14 : height // 10, -width // 6 : -width // 9] = False  # letters have holes
        image[marker] = 1.0
    image = np.clip(image + noise * rng.standard_normal(shape), 0, 1)
    if chest_wall == "right":
        image, breast, marker = image[:, ::-1].copy(), breast[:, ::-1], marker[:, ::-1]
    return Mammogram(image, breast, marker)


@pytest.fixture(scope="session")
def draw_mammogram() -> Callable[..., Mammogram]:
    return draw


@pytest.fixture(scope="session")
def chest() -> np.ndarray:
    """A picture [120, 100] of 0.2 to 0.9 without a uniform row or column."""
    rows, columns = np.mgrid[:120, :100]
    return (0.55 + 0.35 * np.sin(rows / 9 + columns / 13) * np.cos(columns / 7 - rows / 31)).astype(np.float32)
