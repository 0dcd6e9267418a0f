"""The header of a compressed image, read before it is decoded.

A DICOM header may promise a small image around a compressed stream that unfolds to gigabytes. The stream's own header
tells its true size, so the two are compared before a decoder takes any memory.
"""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import numpy as np

from cleft_bundle.data.images.large_pictures import load_picture, open_picture
from cleft_bundle.errors import RadiographError

_JP2_SIGNATURE = b"jP  "  # type of the first box, behind its length, ITU-T T.800 I.5.1
_JPEG_START, _J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Markers that begin a frame: ITU-T T.81 table B.1 (all SOF; C4, C8 and CC mean something else) and T.87 (F7, JPEG-LS)
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7})
# Of them, those that DICOM uses: sequential and progressive DCT with Huffman codes, lossless, and JPEG-LS
_JPEG_KINDS = {0xC0: "JPEG", 0xC1: "JPEG", 0xC2: "JPEG", 0xC3: "JPEG lossless", 0xF7: "JPEG-LS"}
_J2K_PART_15 = 0x4000  # of Rsiz: the blocks are coded by HTJ2K, ITU-T T.814 A.2
_J2K_CODING_STYLE = 0xFF52  # COD, ITU-T T.800 A.6.1
_J2K_TILE = 0xFF90  # SOT, the end of the main header
_MAX_TILES = 65_535  # ITU-T T.800 A.4.2: a tile's index has 16 bits


class Codestream(NamedTuple):
    """Facts that a compressed image states about itself.

    Attributes:
        rows: number of rows.
        columns: number of columns.
        samples: colour components a pixel.
        levels: how often a decoder can halve the resolution; 0 for everything but JPEG 2000.
        kind: "JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", or "" for a JPEG of a kind that DICOM lacks.
        bits: precision of the values; of several components, the highest.
        signed: whether the values are signed, which JPEG 2000 alone can say.
    """

    rows: int
    columns: int
    samples: int
    levels: int
    kind: str
    bits: int
    signed: bool


def without_boxes(data: bytes) -> bytes:
    """A JPEG 2000 image without the boxes of a JP2 file, which some writers leave around it (PS3.5 A.4.4 forbids them).

    Args:
        data: one compressed image, of any format.

    Returns:
        what follows the boxes; data that begin with none as they are.
    """
    return data[max(data.find(_J2K_START), 0) :] if data[4:8] == _JP2_SIGNATURE else data


def inspect(data: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K image.

    Args:
        data: one compressed image, without boxes around it.

    Returns:
        what it says, or None where the data begin like none of these formats.

    Raises:
        RadiographError: if the data end within their header, or the header contradicts itself.
    """
    try:
        if data.startswith(_JPEG_START):
            return _inspect_jpeg(data)
        return _inspect_j2k(data) if data.startswith(_J2K_START) else None
    except struct.error:
        raise RadiographError("the compressed image ends within its header") from None


def decode_reduced(data: bytes, halvings: int) -> np.ndarray:
    """Decode a grey JPEG 2000 or HTJ2K image at a lower resolution level, which skips most of the work.

    A level is the low-pass band of a wavelet, not the mean over an area: values differ a little from a full image that
    is shrunk afterwards, and may overshoot at edges.

    Args:
        data: one compressed image of unsigned values, up to 16 bits.
        halvings: how often to halve rows and columns, at least 1 and at most `Codestream.levels`. Pillow cannot read
            a level whose size OpenJPEG rounds up and Pillow down; the next larger level is read then.

    Returns:
        uint8 or uint16 [ceil(H / 2**n), ceil(W / 2**n)], n being `halvings` or the next smaller number that Pillow
        can read; values as stored.

    Raises:
        RadiographError: if the values are signed, wider than 16 bits, or in colour.
    """
    depth = data[42]  # Ssiz of the first component, ITU-T T.800 A.5.1
    bits = (depth & 0x7F) + 1
    with open_picture(io.BytesIO(data), "JPEG2000") as picture:
        if depth & 0x80 or bits > 16 or picture.mode not in ("L", "I;16"):
            raise RadiographError("only unsigned grey values of up to 16 bits are read at a lower resolution")
        readable = (n for n in range(halvings, 0, -1) if all(_rounds_up(size, n) for size in picture.size))
        picture.reduce = next(readable)  # type: ignore[method-assign, assignment]  # as the plug-in for JPEG 2000 has it
        load_picture(picture)
        pixels = np.asarray(picture)
    return pixels >> (8 * pixels.itemsize - bits)  # Pillow moves the values to the top of its cells


def _rounds_up(size: int, halvings: int) -> bool:
    """Whether size / 2**halvings, rounded to the nearest number, is the next whole number above; always for 1."""
    step = 1 << halvings
    return size % step == 0 or size % step >= step // 2


def _inspect_jpeg(data: bytes) -> Codestream:
    position = 2
    while True:
        fill, marker = struct.unpack_from(">BB", data, position)
        if fill != 0xFF:
            raise RadiographError("the compressed image has no frame header")
        if marker == 0xFF:  # any number of fill bytes may stand before a marker, ITU-T T.81 B.1.1.2
            position += 1
            continue
        length, bits, rows, columns, samples = struct.unpack_from(">HBHHB", data, position + 2)
        if marker in _JPEG_FRAMES:
            return Codestream(rows, columns, samples, 0, _JPEG_KINDS.get(marker, ""), bits, signed=False)
        position += 2 + length


def _inspect_j2k(data: bytes) -> Codestream:
    # SIZ, ITU-T T.800 A.5.1: the image lies between an offset and the end of a grid, which tiles cover
    _, profile, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = struct.unpack_from(
        ">HHIIIIIIIIH", data, 4
    )
    if not (tile_width and tile_height and tile_left < right and tile_top < bottom):
        raise RadiographError("the compressed image has tiles without size")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > _MAX_TILES:
        raise RadiographError(f"the compressed image has {tiles} tiles")
    if not samples:
        raise RadiographError("the compressed image has no components")
    depths = [struct.unpack_from(">B", data, 42 + 3 * n)[0] for n in range(samples)]  # Ssiz
    kind = "HTJ2K" if profile & _J2K_PART_15 else "JPEG 2000"
    bits, signed = max((depth & 0x7F) + 1 for depth in depths), any(depth & 0x80 for depth in depths)
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _J2K_CODING_STYLE:
            (levels,) = struct.unpack_from(">B", data, position + 9)
            return Codestream(bottom - top, right - left, samples, levels, kind, bits, signed)
        if marker == _J2K_TILE:
            raise RadiographError("the compressed image names no coding style")
        position += 2 + length
