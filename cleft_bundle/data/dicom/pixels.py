"""From stored DICOM values to an image: float32, rows x columns, 0..1, bright = dense.

The order is DICOM's (PS3.3 C.7.6.3, C.11.1, C.11.2, C.11.6; PS3.4 N.2): unused bits, modality table or rescale, values
of interest (VOI), polarity. Every stage maps one value to one value, so for up to 16 bits the whole chain is worked
out once for each possible stored value and the image is one look-up.

All functions here are pure. Errors name the tag; the caller adds the name of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cleft_bundle.data.dicom.elements import numbers, tag
from cleft_bundle.data.dicom.layout import Depth, Layout, agreed_layout, declared_layout
from cleft_bundle.data.dicom.lut import apply_table, read_table
from cleft_bundle.data.dicom.voi import DeclaredVoi
from cleft_bundle.errors import RadiographError

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
#: A declared VOI is left for another where it shows less than this share of the grey levels that it could show: of a
#: screen's 256, or of as many as the image has.
LEAST_LEVELS = 0.05
_SCREEN = 256  # grey levels
_BLOCK = 1 << 16  # pixels worked on at a time: few enough to stay in the processor's cache
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601-7, section 2.5.1


class Rendered(NamedTuple):
    """An image as a person should see it.

    Attributes:
        image: float32 [H, W] in 0..1, bright = dense.
        voi: what maps values to grey: "window 1", "lut 1", ... (counted from 1, in the file's order), "percentiles", or
            "none", the whole range.
        passed_over: VOI transformations of the file that would show next to nothing, in the order in which they were
            tried.
        blank: whether all pixels but padding have one and the same grey.
    """

    image: np.ndarray
    voi: str
    passed_over: tuple[str, ...]
    blank: bool


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale `low`..`high` to 0..1 and clip; all 0 where the range is empty."""
    if not high > low:
        return np.zeros(values.shape)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def percentiles(values: np.ndarray, counts: np.ndarray, q: Sequence[float]) -> list[float]:
    """Percentiles of a histogram, equal to `numpy.percentile` (linear) of the values that it counts.

    Args:
        values: the distinct values, [N], in any order.
        counts: how often each occurs, [N]; at least one is positive.
        q: percentages, 0..100.
    """
    order = np.argsort(values, kind="stable")
    ranked, last_rank = values[order], np.cumsum(counts[order]) - 1
    result = []
    for percentage in q:
        rank = last_rank[-1] * percentage / 100
        below, above = ranked[np.searchsorted(last_rank, [np.floor(rank), np.ceil(rank)])]
        result.append(float(below + (above - below) * (rank - np.floor(rank))))
    return result


def apply_modality(values: np.ndarray, ds: Any, signed: bool = False, little_endian: bool = True) -> np.ndarray:
    """Modality LUT, or rescale slope and intercept (PS3.3 C.11.1); float64, same shape.

    Args:
        values: stored values, any shape.
        ds: the data set.
        signed: whether stored values can be negative.
        little_endian: byte order of table entries.
    """
    if ds.get("ModalityLUTSequence"):
        return apply_table(values, read_table(ds.ModalityLUTSequence[0], little_endian, signed))
    slope, intercept = _rescale(ds)
    return values * slope + intercept


def gives_negative(ds: Any, layout: Layout) -> bool:
    """True where the modality stage can give negative values; a table cannot (PS3.3 C.11.1.1.1)."""
    if ds.get("ModalityLUTSequence"):
        return False
    slope, intercept = _rescale(ds)
    return any(value * slope + intercept < 0 for value in layout.range)


def _rescale(ds: Any) -> tuple[float, float]:
    slope, intercept = numbers(ds, "RescaleSlope") or [1.0], numbers(ds, "RescaleIntercept") or [0.0]
    if slope[0] == 0:
        raise RadiographError(f"{tag('RescaleSlope')} is 0: every pixel would be equal")
    return slope[0], intercept[0]


def is_inverted(ds: Any) -> bool:
    """True where low values are to be shown bright: MONOCHROME1 or Presentation LUT Shape INVERSE, which say the same.

    PS3.3 C.11.6.1.2 ties INVERSE to MONOCHROME1, so a file that carries both is inverted once.
    """
    return ds.get("PhotometricInterpretation") == "MONOCHROME1" or ds.get("PresentationLUTShape") == "INVERSE"


def padding_mask(cells: np.ndarray, ds: Any, layout: Layout, cell_bits: int) -> np.ndarray:
    """Mask of the pixel cells that are padding (PS3.3 C.7.5.1.1.2); bool, same shape.

    Padding that lies within the range of stored values is looked for among them. Padding outside, such as 65535 in an
    image of 12 bits, is looked for among the whole cells: cut to 12 bits it would be 4095, which may be true white.
    The sign is that of the stored values, as writers disagree about the VR.

    Args:
        cells: pixel cells, integers of any shape.
        ds: the data set.
        layout: where the value lies in a cell.
        cell_bits: width of a cell.
    """
    if not numbers(ds, "PixelPaddingValue"):
        return np.zeros(cells.shape, bool)
    half = 1 << 15
    wrap = -2 * half if layout.signed else 2 * half  # what a value of the other VR is off by
    limits = [int(v) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit") for v in numbers(ds, name)[:1]]
    limits = [v + wrap if (v >= half if layout.signed else v < 0) else v for v in limits]
    low, high = layout.range
    whole = Layout(cell_bits, cell_bits - 1, layout.signed)
    values = (layout if all(low <= v <= high for v in limits) else whole).unpack(cells)
    return (values >= min(limits)) & (values <= max(limits))


def attenuation(values: np.ndarray, ds: Any, seen: np.ndarray) -> np.ndarray:
    """Detector values of a FOR PROCESSING image as attenuation: rising with density, and logarithmic.

    The beam is weakened exponentially, so the logarithm of a detector's linear signal is what adds up along a ray.
    The sign comes from PixelIntensityRelationshipSign (PS3.3 C.8.11.3.1.2: 1 where low values mean little beam, that
    is dense tissue), else from the photometric interpretation. A relationship of LOG is left as it is.

    Args:
        values: after the modality stage, any shape.
        ds: the data set.
        seen: which values occur in the image and are not padding; same shape.

    Returns:
        float64, same shape; larger = denser.
    """
    sign = numbers(ds, "PixelIntensityRelationshipSign")
    dense_is_low = sign[0] > 0 if sign else is_inverted(ds)
    if ds.get("PixelIntensityRelationship") == "LOG":
        return -values if dense_is_low else values
    low, high = values[seen].min(), values[seen].max()
    beam = np.clip(values - low if dense_is_low else high - values, 0.0, None)
    return -np.log1p(beam)


def render(
    raw: np.ndarray,
    ds: Any,
    *,
    voi: int | str = "auto",
    percentile_range: tuple[float, float] = (0.5, 99.5),
    log: bool = False,
    little_endian: bool = True,
    depth: Depth | None = None,
) -> Rendered:
    """Take a monochrome image from its pixel cells to what a person should see.

    Without a VOI in the file, or with `voi="none"`, the range of the image's own values, padding left out, becomes
    0..1; with `voi="percentile"` the range between two percentiles of them does. Padding becomes 0, black.

    Args:
        raw: integer pixel cells as decoded, [H, W].
        ds: the data set, with BitsStored and PixelRepresentation.
        voi: "auto": the first of the file's windows, or else tables, that shows :data:`LEAST_LEVELS` of the grey
            levels, or else percentiles; number of the window, or "lut", see :meth:`DeclaredVoi.name`; "percentile" or
            "none".
        percentile_range: the two percentages for `voi="percentile"`, for "auto" and for `log`.
        log: show detector values (FOR PROCESSING): logarithm, then percentiles.
        little_endian: byte order of table entries.
        depth: what a compressed image says of its values, see :func:`agreed_layout`.

    Raises:
        RadiographError: if an element is not valid; it names the tag.
    """
    if raw.dtype.itemsize <= 2:
        cells = raw.view(f"u{raw.dtype.itemsize}")
        possible = np.arange(2 ** (8 * cells.itemsize))
    else:
        possible, cells = np.unique(raw, return_inverse=True)
        cells = cells.reshape(raw.shape)  # cells number the possible values
    counts = _histogram(cells, len(possible))
    cell_bits = 8 * raw.dtype.itemsize
    padding = padding_mask(possible, ds, declared_layout(ds), cell_bits)
    layout = agreed_layout(ds, depth, possible[(counts > 0) & ~padding], raw)
    padding = padding_mask(possible, ds, layout, cell_bits)
    counts[padding] = 0
    seen = counts > 0
    values = apply_modality(layout.unpack(possible).astype(np.float64), ds, layout.signed, little_endian)
    inverted = is_inverted(ds)
    if log and seen.any():
        values, inverted = attenuation(values, ds, seen), False
    declared = DeclaredVoi(ds, gives_negative(ds, layout), little_endian)
    windowed, applied, passed_over = _choose(values, counts, declared, "percentile" if log else voi, percentile_range)
    shown = (1.0 - windowed if inverted else windowed).astype(np.float32)
    shown[padding] = 0.0
    blank = not seen.any() or bool(np.ptp(shown[seen]) == 0)
    return Rendered(_look_up(shown, cells), applied, tuple(passed_over), blank)


def _choose(
    values: np.ndarray, counts: np.ndarray, declared: DeclaredVoi, voi: int | str, percentages: tuple[float, float]
) -> tuple[np.ndarray, str, list[str]]:
    """Map values to 0..1; say by what, and what was passed over."""
    passed_over: list[str] = []
    chosen = [] if voi in ("auto", "percentile", "none") else [declared.name(voi)]
    names = declared.names if voi == "auto" else chosen
    for name in filter(None, names):
        windowed = declared.apply(name, values)
        if voi != "auto" or _shows(windowed, values, counts):
            return windowed, name, passed_over
        passed_over.append(name)
    if voi == "percentile" or passed_over:
        windowed = _own_range(values, counts, percentages)
        if voi == "percentile" or _shows(windowed, values, counts):
            return windowed, "percentiles", passed_over
    return _own_range(values, counts, (0.0, 100.0)), "none", passed_over


def _shows(windowed: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether a VOI shows enough of the image's grey levels; always for an image that has one."""
    seen = counts > 0
    levels = min(len(np.unique(values[seen])), _SCREEN)
    shown = len(np.unique(np.rint(windowed[seen] * (_SCREEN - 1))))
    return levels < 2 or shown >= max(2.0, LEAST_LEVELS * levels)


def _look_up(table: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Equal to `table[cells]`, in a fraction of its time; float32, shape of `cells`."""
    flat, result = cells.ravel(), np.empty(cells.size, np.float32)
    index = np.empty(min(_BLOCK, flat.size), np.intp)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        index[: block.size] = block
        # "clip" keeps numpy from buffering the output; every index is valid
        np.take(table, index[: block.size], out=result[start : start + block.size], mode="clip")
    return result.reshape(cells.shape)


def _histogram(cells: np.ndarray, size: int) -> np.ndarray:
    """How often each number below `size` occurs, int64 [size]."""
    counts, flat = np.zeros(size, np.int64), cells.ravel()
    for start in range(0, flat.size, _BLOCK * 4):
        counts += np.bincount(flat[start : start + _BLOCK * 4], minlength=size)
    return counts


def _own_range(values: np.ndarray, counts: np.ndarray, q: tuple[float, float]) -> np.ndarray:
    """Scale the range between two percentiles of a histogram to 0..1; all 0 where nothing is counted."""
    return stretch(values, *percentiles(values, counts, q)) if counts.any() else np.zeros(values.shape)


def whole_range(pixels: np.ndarray) -> np.ndarray | None:
    """Scale the range of the finite values to 0..1; the others become 0.

    Args:
        pixels: numbers of any type and shape.

    Returns:
        float32, same shape; None where no value is finite.
    """
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2:  # by a table, in a fraction of the memory
        native = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
        cells = native.view(f"u{native.itemsize}")
        possible = np.arange(256**cells.itemsize).astype(cells.dtype).view(native.dtype).astype(np.float64)
        scaled = _own_range(possible, _histogram(cells, possible.size), (0.0, 100.0))
        return _look_up(scaled.astype(np.float32), cells)
    finite = np.isfinite(pixels)
    if not finite.any():
        return None
    values = np.where(finite, pixels, 0).astype(np.float64)
    scaled = stretch(values, values[finite].min(), values[finite].max())
    return np.where(finite, scaled, 0.0).astype(np.float32)


def luminance(colour: np.ndarray) -> np.ndarray:
    """Brightness of red, green and blue, [H, W, 3] -> float64 [H, W], in the units of the input."""
    return colour[..., :3].astype(np.float64) @ LUMINANCE
