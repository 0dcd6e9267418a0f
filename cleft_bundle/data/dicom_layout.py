"""Where in a pixel cell the value lies, and what its sign is: as the header says, or as the compressed image does.

The header and the compressed image each say it, and real files contradict themselves. A value is never wrapped: where
the two cannot both be true, the compressed image decides, as its numbers are what was encoded; where it leaves two
readings open, the file is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cleft_bundle.data.dicom_elements import number, numbers, tag
from cleft_bundle.errors import RadiographError

#: OverlayBitPosition (60xx,0102) of all sixteen overlays: bits of the pixel cells that are no part of the value
OVERLAY_BITS = tuple(0x60000102 + 0x20000 * n for n in range(16))


class Depth(NamedTuple):
    """What a compressed image says of its values.

    Attributes:
        bits: precision; for run lengths, which name none, the width of the cells.
        signed: whether the values themselves are signed (JPEG 2000 alone can say so).
    """

    bits: int
    signed: bool


class Layout(NamedTuple):
    """Which bits of a pixel cell are the value.

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


def agreed_layout(ds: Any, depth: Depth | None, cells: np.ndarray) -> Layout:
    """The layout that fits what was decoded.

    Args:
        ds: the data set.
        depth: what the compressed image says; None for native pixel data, where there is the header alone.
        cells: the different cells that occur, padding left out, as they were decoded; integers.

    Returns:
        the header's layout, wherever all cells fit into it: also cells that are sign-extended, that have zeros around
        the value, or overlays that the header declares. Else that of the compressed image.

    Raises:
        RadiographError: if the header says that values are signed, the compressed image says that they are not, and
            some do not fit into BitsStored.
    """
    header = declared_layout(ds)
    if depth is None or not cells.size:
        return header
    stream = Layout(depth.bits, depth.bits - 1, depth.signed)
    if depth.signed:
        return stream._replace(signed=header.signed or bool((stream.unpack(cells) < 0).any()))
    if depth.bits <= header.high_bit:  # narrower than the header says
        return header if header.high_bit == header.bits - 1 else stream._replace(signed=header.signed)
    if _fits(header, stream, cells) or _has_overlays(ds):
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


def _has_overlays(ds: Any) -> bool:
    return any(numbers(ds, element)[:1] not in ([], [0.0]) for element in OVERLAY_BITS if element in ds)
