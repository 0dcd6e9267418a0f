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
from pydicom.datadict import tag_for_keyword

from cleft_bundle.errors import RadiographError

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_BLOCK = 1 << 16  # pixels worked on at a time: few enough to stay in the processor's cache
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601-7, section 2.5.1


class Table(NamedTuple):
    """A DICOM look-up table (PS3.3 C.11.1.1 and C.11.2.1.1).

    Attributes:
        entries: output values, [N].
        first: the input value that the first entry stands for; smaller inputs get the first entry, inputs beyond the
            table the last.
        maximum: top of the output range, 2**bits - 1 (or the largest entry, where a file breaks its own promise).
    """

    entries: np.ndarray
    first: int
    maximum: float


def tag(keyword: str) -> str:
    """Name an element in a message: "(0028,1050) WindowCenter"."""
    number = tag_for_keyword(keyword) or 0
    return f"({number >> 16:04X},{number & 0xFFFF:04X}) {keyword}"


def numbers(ds: Any, name: str) -> list[float]:
    """Return the finite numbers of an element, or an empty list where it is absent or empty.

    Args:
        ds: a pydicom data set or sequence item.
        name: keyword of the element.

    Raises:
        RadiographError: if a value is not a finite number.
    """
    try:
        value = ds.get(name)
        if value is None or value == "":
            return []
        found = [float(v) for v in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])]
    except (TypeError, ValueError, OverflowError) as e:
        raise RadiographError(f"{tag(name)} is not a number") from e
    if not np.isfinite(found).all():
        raise RadiographError(f"{tag(name)} is not finite")
    return found


def unpack_stored(raw: np.ndarray, bits_stored: int, high_bit: int, signed: bool) -> np.ndarray:
    """Return the stored values without the bits around them, which may hold overlays (PS3.5 section 8.1.1).

    Args:
        raw: integer values as they lie in the pixel cells, any shape.
        bits_stored: number of bits that belong to the value.
        high_bit: position of the value's most significant bit.
        signed: whether the value is in two's complement.

    Returns:
        int64, same shape.
    """
    value = raw.astype(np.int64) >> (high_bit + 1 - bits_stored)
    value &= (1 << bits_stored) - 1
    if signed:
        value -= (value >> (bits_stored - 1)) << bits_stored
    return value


def window_linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1), scaled to 0..1; `width` must be at least 1."""
    if width < 1:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; LINEAR needs 1 or more")
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def window_linear_exact(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function LINEAR_EXACT (PS3.3 C.11.2.1.3.2), scaled to 0..1; `width` must be positive."""
    if width <= 0:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; LINEAR_EXACT needs more than 0")
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def window_sigmoid(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function SIGMOID (PS3.3 C.11.2.1.3.1), scaled to 0..1; `width` must be positive."""
    if width <= 0:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; SIGMOID needs more than 0")
    # 1 / (1 + exp(-4 z)) written as a hyperbolic tangent, which does not overflow
    return 0.5 + 0.5 * np.tanh(2.0 * (values - center) / width)


_WINDOWS = {"LINEAR": window_linear, "LINEAR_EXACT": window_linear_exact, "SIGMOID": window_sigmoid}


def read_table(item: Any, little_endian: bool = True) -> Table:
    """Read a LUT item.

    pydicom's own functions read two-byte entries only and wrap around for inputs far above the table; files hold
    one-byte entries too (PS3.3 C.11.1.1.1 and C.11.2.1.1 allow tables of 8 bits).

    Args:
        item: an item of ModalityLUTSequence or VOILUTSequence.
        little_endian: byte order of entries that are given as bytes (VR OW).

    Raises:
        RadiographError: if the descriptor or the entries are absent or do not agree.
    """
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3:
        raise RadiographError(f"{tag('LUTDescriptor')} does not hold 3 numbers")
    count, first, bits = (int(d) for d in descriptor)
    count = count or 2**16
    if not 1 <= bits <= 16 or count < 1:
        raise RadiographError(f"{tag('LUTDescriptor')} names {count} entries of {bits} bits")
    data = item.get("LUTData")
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        entries = np.frombuffer(data, ("<u2" if little_endian else ">u2") if wide else "u1", len(data) // (1 + wide))
    else:
        entries = np.asarray(numbers(item, "LUTData"))
    if len(entries) < count:
        raise RadiographError(f"{tag('LUTData')} holds {len(entries)} of {count} entries")
    entries = entries[:count].astype(np.float64)
    return Table(entries, first, max(2.0**bits - 1, float(entries.max())))


def apply_table(values: np.ndarray, table: Table) -> np.ndarray:
    """Look values up in a table, with its first and last entry beyond its ends; float64, same shape."""
    index = np.clip(np.rint(values) - table.first, 0, len(table.entries) - 1)
    return table.entries[index.astype(np.int64)]


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


def apply_modality(values: np.ndarray, ds: Any, little_endian: bool = True) -> np.ndarray:
    """Modality LUT, or rescale slope and intercept (PS3.3 C.11.1); float64, same shape."""
    if ds.get("ModalityLUTSequence"):
        return apply_table(values, read_table(ds.ModalityLUTSequence[0], little_endian))
    slope, intercept = numbers(ds, "RescaleSlope") or [1.0], numbers(ds, "RescaleIntercept") or [0.0]
    if slope[0] == 0:
        raise RadiographError(f"{tag('RescaleSlope')} is 0: every pixel would be equal")
    return values * slope[0] + intercept[0]


def apply_voi(values: np.ndarray, ds: Any, voi: int | str, little_endian: bool = True) -> np.ndarray | None:
    """Apply one of the file's own VOI transformations (PS3.3 C.11.2) and scale its output range to 0..1.

    Where a file gives windows and tables, DICOM lets the application choose: a number picks the window of that
    number, or the table where there are no windows; "lut" picks the first table, or the first window where there are
    no tables.

    Returns:
        float64 in 0..1, same shape; None where the file has neither window nor table.

    Raises:
        RadiographError: if the chosen one does not exist or is not valid.
    """
    centers, widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
    tables = ds.get("VOILUTSequence") or []
    if not (centers or widths or tables):
        return None
    index = 0 if voi == "lut" else int(voi)
    if tables and (voi == "lut" or not (centers or widths)):
        if index >= len(tables):
            raise RadiographError(f"{tag('VOILUTSequence')} has {len(tables)} items; no. {index} asked")
        table = read_table(tables[index], little_endian)
        return apply_table(values, table) / table.maximum if table.maximum else np.zeros(values.shape)
    if len(centers) != len(widths):
        raise RadiographError(f"{tag('WindowWidth')} has {len(widths)} values and {tag('WindowCenter')} {len(centers)}")
    if index >= len(centers):
        raise RadiographError(f"{tag('WindowCenter')} has {len(centers)} values; no. {index} (from 0) asked")
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _WINDOWS:
        raise RadiographError(f"{tag('VOILUTFunction')} is none of {', '.join(_WINDOWS)}")
    return _WINDOWS[function](values, centers[index], widths[index])


def is_inverted(ds: Any) -> bool:
    """Whether low values are to be shown bright: MONOCHROME1 or Presentation LUT Shape INVERSE, which say the same.

    PS3.3 C.11.6.1.2 ties INVERSE to MONOCHROME1, so a file that carries both is inverted once.
    """
    return ds.get("PhotometricInterpretation") == "MONOCHROME1" or ds.get("PresentationLUTShape") == "INVERSE"


def padding_mask(values: np.ndarray, ds: Any, bits_stored: int, signed: bool) -> np.ndarray:
    """Where stored values are padding (PS3.3 C.7.5.1.1.2); bool, same shape.

    The padding elements are brought to the stored values' bits and sign, as writers disagree about theirs.
    """
    limits = [v for name in ("PixelPaddingValue", "PixelPaddingRangeLimit") for v in numbers(ds, name)[:1]]
    if not numbers(ds, "PixelPaddingValue"):
        return np.zeros(values.shape, bool)
    ends = unpack_stored(np.array(limits, np.int64), bits_stored, bits_stored - 1, signed)
    return (values >= ends.min()) & (values <= ends.max())


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
    voi: int | str = 0,
    percentile_range: tuple[float, float] = (0.5, 99.5),
    log: bool = False,
    little_endian: bool = True,
) -> np.ndarray:
    """Take a monochrome image from its pixel cells to what a person should see.

    Without a VOI in the file, or with `voi="none"`, the range of the image's own values, padding left out, becomes
    0..1; with `voi="percentile"` the range between two percentiles of them does. Padding becomes 0, black.

    Args:
        raw: integer pixel cells as decoded, [H, W].
        ds: the data set, with BitsStored and PixelRepresentation.
        voi: number of the window, "lut", "percentile" or "none"; see `apply_voi`.
        percentile_range: the two percentages for `voi="percentile"` and `log`.
        log: show detector values (FOR PROCESSING): logarithm, then percentiles.
        little_endian: byte order of table entries.

    Returns:
        float32 [H, W] in 0..1, bright = dense.

    Raises:
        RadiographError: if an element is not valid; it names the tag.
    """
    bits, signed = int(ds.BitsStored), bool(ds.get("PixelRepresentation"))
    if raw.dtype.itemsize <= 2:
        cells = raw.view(f"u{raw.dtype.itemsize}")
        possible = np.arange(2 ** (8 * cells.itemsize))
    else:
        possible, cells = np.unique(raw, return_inverse=True)
        cells = cells.reshape(raw.shape)  # cells number the possible values
    high_bit = ds.get("HighBit")
    values = unpack_stored(possible, bits, bits - 1 if high_bit is None else int(high_bit), signed)
    padding = padding_mask(values, ds, bits, signed)
    values = apply_modality(values.astype(np.float64), ds, little_endian)
    windowed = None if log or voi in ("percentile", "none") else apply_voi(values, ds, voi, little_endian)
    inverted = is_inverted(ds)
    if windowed is None:
        counts = _histogram(cells, len(possible))
        counts[padding] = 0
        seen = counts > 0
        if log and seen.any():
            values, inverted = attenuation(values, ds, seen), False
        windowed = _own_range(values, counts, percentile_range if log or voi == "percentile" else (0.0, 100.0))
    shown = 1.0 - windowed if inverted else windowed
    shown[padding] = 0.0
    return _look_up(shown.astype(np.float32), cells)


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


def luminance(colour: np.ndarray) -> np.ndarray:
    """Brightness of red, green and blue, [H, W, 3] -> float64 [H, W], in the units of the input."""
    return colour[..., :3].astype(np.float64) @ LUMINANCE
