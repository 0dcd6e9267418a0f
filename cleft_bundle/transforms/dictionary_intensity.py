"""Dictionary versions of the transforms of grey values, named as MONAI names them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform

from cleft_bundle.transforms.intensity import (
    GreyToRGB,
    NormalizeForBackbone,
    RandWindow,
    RemoveMarkers,
    WindowPercentile,
)

Data = Mapping[Hashable, Any]


class _Eachd(MapTransform):
    """Apply an array transform to each image on its own."""

    def __init__(self, keys: KeysCollection, transform: Transform, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Transform the images of an item."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


class RemoveMarkersd(_Eachd):
    """Dictionary version of `RemoveMarkers`; arguments as there."""

    def __init__(self, keys: KeysCollection, margin: float = 0.02, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, RemoveMarkers(margin), allow_missing_keys)


class WindowPercentiled(_Eachd):
    """Dictionary version of `WindowPercentile`; arguments as there."""

    def __init__(
        self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, WindowPercentile(lower, upper), allow_missing_keys)


class GreyToRGBd(_Eachd):
    """Dictionary version of `GreyToRGB`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, GreyToRGB(), allow_missing_keys)


class NormalizeForBackboned(_Eachd):
    """Dictionary version of `NormalizeForBackbone`; arguments as there."""

    def __init__(
        self, keys: KeysCollection, backbone: str | Mapping[str, Any], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, NormalizeForBackbone(backbone), allow_missing_keys)


class RandWindowd(RandomizableTransform, MapTransform):
    """Dictionary version of `RandWindow`, with one window for all images of an item; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.4,
        low: tuple[float, float] = (0.0, 0.1),
        high: tuple[float, float] = (0.8, 1.2),
        sigmoid: float = 0.3,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        self.window = RandWindow(prob, low, high, sigmoid)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Randomizable:
        """Seed the window's random numbers."""
        super().set_random_state(seed, state)
        self.window.set_random_state(seed, state)
        return self

    def __call__(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Window the images of an item, or none of them."""
        d = dict(data)
        self.window.randomize()
        for key in self.key_iterator(d):
            d[key] = self.window(d[key], randomize=False)
        return d


GreyToRGBD = GreyToRGBDict = GreyToRGBd
NormalizeForBackboneD = NormalizeForBackboneDict = NormalizeForBackboned
RandWindowD = RandWindowDict = RandWindowd
RemoveMarkersD = RemoveMarkersDict = RemoveMarkersd
WindowPercentileD = WindowPercentileDict = WindowPercentiled
