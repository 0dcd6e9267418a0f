"""Dictionary versions of the transforms, named as MONAI names them: CropBreastd, also CropBreastD and CropBreastDict.

Where one image decides for others, such as its mask, that is the one of `source_key`; without it, the first of `keys`
that the item has.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    Cropd,
    InvertibleTransform,
    MapTransform,
    Padd,
    RandFlipd,
    Randomizable,
    RandomizableTransform,
    Transform,
)
from monai.utils import TraceKeys

from cleft_bundle.transforms.checks import as_image, require_fraction
from cleft_bundle.transforms.intensity import (
    GreyToRGB,
    NormalizeForBackbone,
    RandWindow,
    RemoveMarkers,
    WindowPercentile,
)
from cleft_bundle.transforms.sides import mirror_caption, opposite
from cleft_bundle.transforms.spatial import (
    ContentCrop,
    CropBreast,
    CropCollimation,
    OrientBreast,
    PadToSquare,
    mark_mirrored,
)

Data = Mapping[Hashable, Any]


def _source(transform: Any, d: dict[Hashable, Any]) -> Hashable | None:
    """The key of the image that decides; None where an item may be without all of its images, and is."""
    return next(iter(transform.key_iterator(d)), None) if transform.source_key is None else transform.source_key


class ContentCropd(Cropd):
    """Crop several images to the box that one of them tells; the base of `CropBreastd` and `CropCollimationd`."""

    def __init__(
        self,
        keys: KeysCollection,
        cropper: ContentCrop,
        source_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, cropper=cropper, allow_missing_keys=allow_missing_keys, lazy=lazy)
        self.source_key = source_key

    @property
    def requires_current_data(self) -> bool:
        """Whether a lazy pipeline must apply what is pending before this transform; it must."""
        return True

    def __call__(self, data: Data, lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Crop the images of an item."""
        d = dict(data)
        source = _source(self, d)
        if source is None:
            return d
        slices = self.cropper.box(as_image(d[source]))
        for key in self.key_iterator(d):
            d[key] = self.cropper(d[key], slices=slices, lazy=self.lazy if lazy is None else lazy)
        return d


class CropBreastd(ContentCropd):
    """Dictionary version of `CropBreast`; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: Hashable | None = None,
        margin: float = 0.03,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, CropBreast(margin, lazy), source_key, allow_missing_keys, lazy)


class CropCollimationd(ContentCropd):
    """Dictionary version of `CropCollimation`; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: Hashable | None = None,
        tolerance: float = 0.02,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, CropCollimation(tolerance, lazy), source_key, allow_missing_keys, lazy)


class PadToSquared(Padd):
    """Dictionary version of `PadToSquare`; arguments as there, `mode` one for each key or one for all."""

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "symmetric",
        mode: Any = "constant",
        allow_missing_keys: bool = False,
        lazy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, PadToSquare(method=method, lazy=lazy, **kwargs), mode, allow_missing_keys, lazy)


class OrientBreastd(MapTransform, InvertibleTransform):
    """Dictionary version of `OrientBreast`; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: Hashable | None = None,
        chest_wall: str = "left",
        by: str = "pixels",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key
        self.orient = OrientBreast(chest_wall, by)

    def __call__(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Mirror the images of an item, or none of them."""
        d = dict(data)
        source = _source(self, d)
        if source is None:
            return d
        mirror = self.orient.is_mirrored(as_image(d[source]))
        for key in self.key_iterator(d):
            d[key] = self.orient(d[key], mirror=mirror)
        return d

    def inverse(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Mirror back what was mirrored."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.orient.inverse(d[key])
        return d


class RandBreastFlipd(RandFlipd):
    """Dictionary version of `RandBreastFlip`, which also mirrors what the item says of the breast's side.

    A mirrored item has L and R exchanged in its laterality, in the item as in the metadata, and the words left and
    right in its caption.

    Args:
        keys: keys of the images, mirrored together.
        prob: probability of mirroring, 0..1.
        laterality_key: key of the side, "L" or "R"; an item may be without it.
        caption_key: key of the caption; an item may be without it.
        allow_missing_keys: as in MONAI.
        lazy: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        laterality_key: Hashable = "laterality",
        caption_key: Hashable = "caption",
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, require_fraction("prob", prob), 1, allow_missing_keys, lazy)
        self.laterality_key = laterality_key
        self.caption_key = caption_key

    def __call__(self, data: Data, lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Mirror an item, or leave it."""
        d = super().__call__(data, lazy=lazy)
        return self._mark(d) if self._do_transform else d

    def inverse(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Mirror back what was mirrored, its side and caption too."""
        first = next(iter(self.key_iterator(dict(data))))
        mirrored = data[first].applied_operations[-1].get(TraceKeys.DO_TRANSFORM)
        d = super().inverse(data)
        return self._mark(d) if mirrored else d

    def _mark(self, d: dict[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(d):
            d[key] = mark_mirrored(d[key])
        for name, mirror in ((self.laterality_key, opposite), (self.caption_key, mirror_caption)):
            if name in d:
                d[name] = mirror(d[name])
        return d


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


CropBreastD = CropBreastDict = CropBreastd
CropCollimationD = CropCollimationDict = CropCollimationd
GreyToRGBD = GreyToRGBDict = GreyToRGBd
NormalizeForBackboneD = NormalizeForBackboneDict = NormalizeForBackboned
OrientBreastD = OrientBreastDict = OrientBreastd
PadToSquareD = PadToSquareDict = PadToSquared
RandBreastFlipD = RandBreastFlipDict = RandBreastFlipd
RandWindowD = RandWindowDict = RandWindowd
RemoveMarkersD = RemoveMarkersDict = RemoveMarkersd
WindowPercentileD = WindowPercentileDict = WindowPercentiled
