"""The place and the sign of the value in a pixel cell: as the header says, or as the compressed image does.

The header and the compressed image each say it, and real files contradict themselves. A value is never wrapped: where
the two cannot both be true, the compressed image decides, as its numbers are what was encoded; where it leaves two
readings open, the file is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cleft_bundle.data.dicom.elements import number, numbers, tag
from cleft_bundle.errors import RadiographError

#: OverlayBitPosition (60xx,0102) of all sixteen overlays: bits of the pixel cells that are no part of the value
OVERLAY_BITS = tuple(0x60000102 + 0x20000 * n for n in range(16))


_SURE = 0.75  # of the places where the bits above the value change


class Depth(NamedTuple):
    """Facts that a compressed image states about its values.

    Attributes:
        bits: precision; for run lengths, which name none, the width of the cells.
        signed: whether the values themselves are signed (JPEG 2000 alone can say so).
    """

    bits: int
    signed: bool


class Layout(NamedTuple):
    """Bits of a pixel cell that are the value.

    Attributes:
        bits: number of bits.
        high_bit: position of the most significant one.
        signed: whether the value is in two's complement.
    """

    bits: int
    high_bit: int
    signed: bool

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest possible value."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def unpack(self, cells: np.ndarray) -> np.ndarray:
        """Return the values without the bits around them, which may hold overlays (PS3.5 section 8.1.1).

        Args:
            cells: integers as they lie in the pixel cells, any shape.

        Returns:
            int64, same shape.
        """
        value = cells.astype(np.int64) >> (self.high_bit + 1 - self.bits)
        value &= (1 << self.bits) - 1
        if self.signed:
            value -= (value >> (self.bits - 1)) << self.bits
        return value


def declared_layout(ds: Any) -> Layout:
    """The layout that the header declares; without PixelRepresentation, values are unsigned."""
    bits = number(ds, "BitsStored", number(ds, "BitsAllocated", 16))
    return Layout(bits, number(ds, "HighBit", bits - 1), bool(number(ds, "PixelRepresentation", 0)))


def agreed_layout(ds: Any, depth: Depth | None, cells: np.ndarray, picture: np.ndarray | None = None) -> Layout:
    """The layout that fits what was decoded.

    Bits above the value that the header does not explain are a graphic, as was once allowed (PS3.5 section 8.1.2), or
    the value is larger than the header says. The picture tells the two apart: see `_bits_above`.

    Args:
        ds: the data set.
        depth: what the compressed image says; None for native pixel data, where there is the header alone.
        cells: the different cells that occur, padding left out, as they were decoded; integers.
        picture: all cells, [H, W]; None where it is not to be asked.

    Returns:
        the header's layout, wherever all cells fit into it: also cells that are sign-extended, that have zeros around
        the value, or overlays. Else that of the compressed image.

    Raises:
        RadiographError: if values do not fit into BitsStored, and there is no compressed image that says how they are
            meant, or its values are unsigned and the header's are not.
    """
    header = declared_layout(ds)
    if not cells.size:
        return header
    if depth is None:
        if picture is None:
            return header
        whole = 8 * picture.dtype.itemsize
        fits = _fits(header, Layout(whole, whole - 1, header.signed), cells) or _has_overlays(ds)
        if not fits and _bits_above(picture, header) == "values":
            raise RadiographError(f"{tag('BitsStored')} is {header.bits}, but the pixels hold larger values")
        return header
    return _agreed_with_stream(ds, header, depth, cells, picture)


def _agreed_with_stream(ds: Any, header: Layout, depth: Depth, cells: np.ndarray, picture: np.ndarray | None) -> Layout:
    stream = Layout(depth.bits, depth.bits - 1, depth.signed)
    if depth.signed:
        return stream._replace(signed=header.signed or bool((stream.unpack(cells) < 0).any()))
    if depth.bits <= header.high_bit:  # narrower than the header says
        return header if header.high_bit == header.bits - 1 else stream._replace(signed=header.signed)
    if _fits(header, stream, cells) or _has_overlays(ds):
        return header
    if picture is not None and _bits_above(picture, header) == "graphic":
        return header
    if header.signed:
        raise RadiographError(
            f"{tag('BitsStored')} is {header.bits} and {tag('PixelRepresentation')} 1, but the compressed image holds"
            f" unsigned values of {depth.bits} bits"
        )
    return stream


def _fits(header: Layout, stream: Layout, cells: np.ndarray) -> bool:
    """Whether cells of unsigned values hold the header's layout and nothing else: zeros around it, or its sign."""
    values = stream.unpack(cells)
    shift = header.high_bit + 1 - header.bits
    within = ((1 << header.bits) - 1) << shift
    if not (values & ~within).any():
        return True
    if not header.signed:
        return False
    low, high = header.range
    extended = stream._replace(signed=True).unpack(cells)
    return bool(((extended >> shift) >= low).all() and ((extended >> shift) <= high).all() and not shift)


def _bits_above(picture: np.ndarray, header: Layout) -> str:
    """What the bits above the value are, by neighbours in a row between which they change.

    Where values are larger than the header says, the cells change by little there. Where a graphic is laid over the
    picture, they change by the weight of its bit, and the value below goes on.

    Returns:
        "values", "graphic", or "" where it is not clear, as in noise, or where these bits are the same everywhere.
    """
    cells = picture.view(f"u{picture.dtype.itemsize}").astype(np.int64)
    changes = np.diff(cells >> header.high_bit + 1, axis=-1) != 0
    below = cells & (1 << header.high_bit + 1) - 1
    near, nearer = 1 << header.high_bit, 1 << header.high_bit - 1  # a half and a quarter of the values
    goes_on, goes_on_below = (
        (np.abs(np.diff(part, axis=-1)[changes]) < limit).mean() if changes.any() else 0.0
        for part, limit in ((cells, near), (below, nearer))
    )
    if goes_on > _SURE:
        return "values"
    return "graphic" if goes_on < 1 - _SURE and goes_on_below > _SURE else ""


def _has_overlays(ds: Any) -> bool:
    return any(numbers(ds, element)[:1] not in ([], [0.0]) for element in OVERLAY_BITS if element in ds)
