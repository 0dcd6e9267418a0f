"""Dictionary versions of the transforms, named as MONAI names them: CropBreastd, also CropBreastD and CropBreastDict.

Where one image decides for others, such as its mask, that is the one of `source_key`; without it, the first of `keys`
that the item has. With `allow_missing_keys`, an item without the one that decides is left as it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import (
    Cropd,
    InvertibleTransform,
    MapTransform,
    Padd,
    RandFlipd,
)
from monai.utils import TraceKeys, ensure_tuple_rep

from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms.checks import about, as_image, require_fraction
from cleft_bundle.transforms.orientation import OrientRadiograph
from cleft_bundle.transforms.resampling import ResampleToSpacing
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


def _source(transform: Any, d: Mapping[Hashable, Any]) -> Hashable | None:
    """The key of the image that decides; None where an item may be without it, and is: it is then left as it is.

    Raises:
        KeyError: naming the key that the item must have and has not.
    """
    if transform.source_key is None:
        return next(iter(transform.key_iterator(dict(d))), None)
    if transform.source_key in d:
        return transform.source_key
    if not transform.allow_missing_keys:
        raise KeyError(
            f"source_key `{transform.source_key}` of transform `{type(transform).__name__}` was missing in the data "
            "and allow_missing_keys==False."
        )
    return None


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
        """True, as a lazy pipeline must apply what is pending before this transform."""
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

    def inverse(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Pad with 0 what was cropped."""
        return dict(data) if _source(self, data) is None else super().inverse(data)


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


class _Decidedd(MapTransform, InvertibleTransform):
    """Move the pixels of several images in the way that one of them decides."""

    def __init__(
        self, keys: KeysCollection, transform: Any, source_key: Hashable | None, allow_missing_keys: bool
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform
        self.source_key = source_key

    def _decide(self, img: torch.Tensor) -> dict[str, Any]:
        """What the array transform is told about all images, by the one of `source_key`."""
        raise NotImplementedError

    def __call__(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Move the pixels of the images of an item."""
        d = dict(data)
        source = _source(self, d)
        if source is None:
            return d
        decision = self._decide(as_image(d[source]))
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], **decision)
        return d

    def inverse(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Move them back."""
        d = dict(data)
        if _source(self, d) is None:
            return d
        for key in self.key_iterator(d):
            d[key] = self.transform.inverse(d[key])
        return d


class OrientBreastd(_Decidedd):
    """Dictionary version of `OrientBreast`; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: Hashable | None = None,
        chest_wall: str = "left",
        by: str = "pixels",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, OrientBreast(chest_wall, by), source_key, allow_missing_keys)

    def _decide(self, img: torch.Tensor) -> dict[str, Any]:
        return {"mirror": self.transform.is_mirrored(img)}


class OrientRadiographd(_Decidedd):
    """Dictionary version of `OrientRadiograph`: all images of an item are turned as the header of one says."""

    def __init__(
        self,
        keys: KeysCollection,
        source_key: Hashable | None = None,
        breast: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, OrientRadiograph(breast), source_key, allow_missing_keys)

    def _decide(self, img: torch.Tensor) -> dict[str, Any]:
        return {"turn": self.transform.decide(img)}


class ResampleToSpacingd(_Decidedd):
    """Dictionary version of `ResampleToSpacing`, all images of an item to one size; arguments as there.

    Args:
        keys: keys of the images, which must be of one size.
        pixel_spacing: as in `ResampleToSpacing`.
        source_key: key of the image whose spacing counts.
        fallback: as in `ResampleToSpacing`.
        largest: as in `ResampleToSpacing`.
        mode: as in `ResampleToSpacing`, one for each key or one for all; "nearest-exact" for masks.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixel_spacing: float,
        source_key: Hashable | None = None,
        fallback: float | None = None,
        largest: int | None = None,
        mode: Any = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ResampleToSpacing(pixel_spacing, fallback, largest), source_key, allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Resample the images of an item."""
        d = dict(data)
        source = _source(self, d)
        if source is None:
            return d
        first = as_image(d[source])
        size = self.transform.size(first)
        for key, mode in self.key_iterator(d, self.mode):
            img = as_image(d[key])
            if img.shape[1:] != first.shape[1:]:
                with about(img):
                    raise RadiographError(
                        f"{key!r} is {list(img.shape[1:])}, but {source!r} is {list(first.shape[1:])}"
                    )
            d[key] = self.transform(img, mode=mode, size=size)
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
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = as_image(d[key])
        d = super().__call__(d, lazy=lazy)
        return self._mark(d) if self._do_transform else d

    def inverse(self, data: Data) -> dict[Hashable, torch.Tensor]:
        """Mirror back what was mirrored, its side and caption too."""
        first = next(iter(self.key_iterator(dict(data))), None)
        if first is None:
            return dict(data)
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


CropBreastD = CropBreastDict = CropBreastd
CropCollimationD = CropCollimationDict = CropCollimationd
OrientBreastD = OrientBreastDict = OrientBreastd
OrientRadiographD = OrientRadiographDict = OrientRadiographd
PadToSquareD = PadToSquareDict = PadToSquared
RandBreastFlipD = RandBreastFlipDict = RandBreastFlipd
ResampleToSpacingD = ResampleToSpacingDict = ResampleToSpacingd
