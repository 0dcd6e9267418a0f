"""Checks of arguments and images that all transforms share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.utils import convert_to_tensor

from cleft_bundle.errors import BundleError, RadiographError


def require_fraction(name: str, value: float) -> float:
    """Return a number of 0..1.

    Raises:
        BundleError: names the argument if it is anything else.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BundleError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)


def require_range(name: str, value: Any) -> tuple[float, float]:
    """Return two numbers of which the first is not the larger.

    Raises:
        BundleError: names the argument if it is anything else.
    """
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise BundleError(f"{name}: expected two numbers, the lower one first, got {value!r}")
    return low, high


def as_image(img: Any) -> torch.Tensor:
    """Return an array or tensor [C, H, W] as a tensor, a MetaTensor while MONAI tracks metadata.

    Raises:
        RadiographError: names the file and the shape if it has not three axes.
    """
    image: torch.Tensor = convert_to_tensor(img, track_meta=get_track_meta())
    if image.ndim != 3:
        with about(image):
            raise RadiographError(f"has the shape {list(image.shape)}: [channels, rows, columns] is expected")
    return image


def extremes(values: np.ndarray | torch.Tensor) -> tuple[float, float]:
    """The lowest and the highest of some values, any shape.

    Raises:
        RadiographError: if there are none, or one that is not finite.
    """
    values = torch.as_tensor(values)
    if not values.numel():
        raise RadiographError("holds no pixel")
    values = values.detach() if values.is_floating_point() else values.to(torch.float64)  # not all integers are known
    low, high = (float(end) for end in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RadiographError("holds values that are not finite")
    return low, high


@contextmanager
def about(img: torch.Tensor) -> Iterator[None]:
    """Put the file of an image before the message of a RadiographError, where its metadata name one."""
    try:
        yield
    except RadiographError as error:
        name = img.meta.get("filename_or_obj") if isinstance(img, MetaTensor) else None
        raise RadiographError(f"{name}: {error}" if name else str(error)) from error
