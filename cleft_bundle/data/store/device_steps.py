"""Steps that a network wants of every image and that a device does for a whole batch: one grey channel travels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, EnsureTyped, NormalizeIntensityd, RandomizableTrait, RepeatChanneld


@dataclass(frozen=True)
class DeviceSteps:
    """Normalisation and the repetition of channels, for a batch.

    Args:
        subtrahend: what is taken away.
        divisor: by what the rest is divided.
        repeats: channels for each.
    """

    subtrahend: float
    divisor: float
    repeats: int

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Images [B, C * repeats, H, W] of images [B, C, H, W], to the last bit as MONAI's steps make each."""
        return ((image - self.subtrahend) / self.divisor).repeat_interleave(self.repeats, dim=1)


def without_device_steps(dataset: Any, key: str = "image") -> tuple[Any, DeviceSteps | None]:
    """A dataset that leaves to the device what its last transforms do, and these steps.

    They are NormalizeIntensityd by one mean and deviation, RepeatChanneld and EnsureTyped, in this order, behind a
    random transform: without one the dataset may keep what they have made.

    Args:
        dataset: a MONAI dataset with ``transform``.
        key: of the image.

    Returns:
        a shallow copy and its steps; the dataset itself and None where its last transforms are others.
    """
    if not isinstance(dataset.transform, Compose):
        return dataset, None
    flat = dataset.transform.flatten()
    first, last = list(flat.transforms[:-3]), flat.transforms[-3:]
    steps = _steps(last, key)
    if steps is None or not any(isinstance(step, RandomizableTrait) for step in first):
        return dataset, None
    dataset = copy.copy(dataset)
    dataset.transform = Compose([*first, last[2]])
    return dataset, steps


def _steps(last: Any, key: str) -> DeviceSteps | None:
    kinds = (NormalizeIntensityd, RepeatChanneld, EnsureTyped)
    if len(last) != len(kinds) or not all(type(step) is kind for step, kind in zip(last, kinds, strict=True)):
        return None
    normal, repeat, typed = last
    norm = normal.normalizer
    simple = not (norm.nonzero or norm.channel_wise) and norm.dtype in (None, np.float32, torch.float32)
    numbers = all(isinstance(value, int | float) for value in (norm.subtrahend, norm.divisor)) and norm.divisor
    if not simple or not numbers or any(step.keys != (key,) for step in last) or typed.dtype != (None,):
        return None
    return DeviceSteps(norm.subtrahend, norm.divisor, repeat.repeater.repeats)
