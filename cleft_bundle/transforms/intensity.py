"""Array transforms that change values and leave every pixel where it is.

All take and give an image [C, H, W], bright = dense; of NumPy arrays and tensors they make MetaTensors while MONAI
tracks metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import NormalizeIntensity, RandomizableTransform, RepeatChannel, ScaleIntensityRange, Transform
from monai.utils import convert_to_dst_type

from cleft_bundle.data.dicom.voi import window_linear_exact, window_sigmoid
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms.backbone_statistics import backbone_statistics
from cleft_bundle.transforms.checks import about, as_image, extremes, require_fraction, require_range
from cleft_bundle.transforms.tissue import find_tissue

_MAX_SAMPLES = 1_000_000


class RemoveMarkers(Transform):
    """Fill what lies outside the breast of a mammogram with the level of its background.

    Letters, labels, film borders, haze and dust go; so does tissue that is no part of the largest piece, such as a
    fold of the abdomen. What is burnt in over the tissue stays. An image that is tissue all over is left as it is.

    Args:
        margin: width of the rim around the tissue that is left as it is, as a part of the longest side, 0..1.

    Raises:
        BundleError: if `margin` is not in 0..1; on a call, RadiographError naming the file if it holds no tissue.
    """

    def __init__(self, margin: float = 0.02) -> None:
        self.margin = require_fraction("margin", margin)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Clean an image [C, H, W]; same shape and units."""
        img = as_image(img)
        with about(img):
            tissue = find_tissue(img)
        keep = torch.from_numpy(tissue.pixels(self.margin)).to(img.device)
        return img.masked_fill(~keep, tissue.background)


class WindowPercentile(Transform):
    """Stretch the range between two percentiles of an image to 0..1, and clip.

    Unlike MONAI's ScaleIntensityRangePercentiles, the pixels at the image's lowest value do not count: padding and
    air, which may be anything from none to nine tenths of a radiograph, would decide where its tissue ends up. An
    image of one value becomes 0.

    Args:
        lower: percentage of the pixels that become 0, 0..100.
        upper: percentage above which pixels become 1; larger than `lower`.

    Raises:
        BundleError: if the two are not rising numbers of 0..100; on a call, RadiographError naming the file if it
            holds values that are not finite.

    Examples:
        >>> import torch
        >>> shown = WindowPercentile()(torch.linspace(0.2, 0.6, 100).reshape(1, 10, 10))
        >>> float(shown.min()), float(shown.max())
        (0.0, 1.0)
    """

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        low, high = require_range("lower, upper", (lower, upper))
        if not 0 <= low < high <= 100:
            raise BundleError(f"lower, upper: expected two rising percentages from 0 to 100, got {lower} and {upper}")
        self.percentages = (low, high)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Window an image [C, H, W] of any units to float32 in 0..1."""
        img = as_image(img)
        with about(img):
            lowest, highest = extremes(img)
        if lowest == highest:
            return torch.zeros_like(img, dtype=torch.float32)
        sample = img[..., :: 1 + img.numel() // _MAX_SAMPLES].to(torch.float32).numpy(force=True)
        if sample.min() == sample.max():  # what differs lies between the columns that are looked at
            sample = img.to(torch.float32).numpy(force=True)
        lowest = float(sample.min())
        above = sample[sample > lowest]
        low, high = (float(level) for level in np.percentile(above, self.percentages))
        if low == high:  # two values only: the lower one is 0
            low = lowest
        return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(img)


class RandWindow(RandomizableTransform):
    """Show an image through another window at random, as scanners and readers differ.

    The window runs from `low` to `high`, and is linear or, as several makers' VOI is, sigmoid. 0 stays 0, so that air
    remains black.

    Args:
        prob: probability of windowing, 0..1.
        low: range of the value that becomes 0.
        high: range of the value that becomes 1 (linear), above that of `low`.
        sigmoid: part of the windows that are sigmoid, 0..1.

    Raises:
        BundleError: naming the argument that is out of its range.

    Source: DICOM PS3.3 C.11.2.1.3, VOI LUT functions LINEAR_EXACT and SIGMOID.

    Examples:
        >>> import torch
        >>> shown = RandWindow(prob=1.0).set_random_state(0)(torch.rand(1, 4, 4))
        >>> bool(shown.min() >= 0 and shown.max() <= 1)
        True
    """

    def __init__(
        self,
        prob: float = 0.4,
        low: tuple[float, float] = (0.0, 0.1),
        high: tuple[float, float] = (0.8, 1.2),
        sigmoid: float = 0.3,
    ) -> None:
        super().__init__(require_fraction("prob", prob))
        self.low = require_range("low", low)
        self.high = require_range("high", high)
        if not 0 <= self.low[0] <= self.low[1] < self.high[0]:
            raise BundleError(f"low, high: expected low from 0 on and below high, got {low!r} and {high!r}")
        self.sigmoid = require_fraction("sigmoid", sigmoid)

    def randomize(self, data: Any = None) -> None:
        """Draw the next window."""
        super().randomize(None)
        self._ends = self.R.uniform(*self.low), self.R.uniform(*self.high)
        self._curve = window_sigmoid if self.R.rand() < self.sigmoid else window_linear_exact

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Window an image [C, H, W] of 0..1 to 0..1, float32; or leave it."""
        img = as_image(img)
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        low, high = self._ends
        shown = self._curve(
            np.append(img.to(torch.float32).numpy(force=True).ravel(), 0.0), (low + high) / 2, high - low
        )
        black = shown[-1]
        shown = ((shown[:-1] - black) / (1 - black)).reshape(img.shape).clip(0.0, 1.0)
        return convert_to_dst_type(shown, img, dtype=torch.float32)[0]


class GreyToRGB(RepeatChannel):
    """Repeat the one channel of a grey image, [1, H, W] to [3, H, W], for backbones that were trained on photographs.

    Raises:
        RadiographError: on a call, naming the file if the image has not one channel; MONAI's RepeatChannel would make
            nine of three.

    Examples:
        >>> import torch
        >>> GreyToRGB()(torch.ones(1, 4, 4)).shape
        torch.Size([3, 4, 4])
    """

    def __init__(self) -> None:
        super().__init__(repeats=3)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Repeat the channel."""
        return super().__call__(_with_channels(as_image(img), 1))


class NormalizeForBackbone(NormalizeIntensity):
    """Subtract the mean and divide by the standard deviation that a backbone was trained with.

    Args:
        backbone: hub id, local folder, or config values with `model_type`; see `backbone_statistics`.

    Raises:
        BundleError: if the statistics of the backbone are not known; on a call, RadiographError naming the file if
            the image has not three channels.

    Examples:
        >>> import torch
        >>> NormalizeForBackbone({"model_type": "vit"})(torch.ones(3, 4, 4)).unique()
        metatensor([1.])
    """

    def __init__(self, backbone: str | Mapping[str, Any]) -> None:
        mean, std = backbone_statistics(backbone)
        super().__init__(subtrahend=np.reshape(mean, (3, 1, 1)), divisor=np.reshape(std, (3, 1, 1)))

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Normalise an image [3, H, W] of 0..1."""
        return super().__call__(_with_channels(as_image(img), 3))


def _with_channels(img: torch.Tensor, number: int) -> torch.Tensor:
    if img.shape[0] != number:
        with about(img):
            raise RadiographError(f"has {img.shape[0]} channels: {number} expected")
    return img
