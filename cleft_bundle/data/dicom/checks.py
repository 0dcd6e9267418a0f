"""Checks of a DICOM file before memory is taken: the size that the header claims against what is there."""

from __future__ import annotations

import re
import struct
from typing import Any

from monai.utils import optional_import
from pydicom import uid

from cleft_bundle.data.dicom.codestreams import Codestream, inspect
from cleft_bundle.data.dicom.elements import number, numbers, tag
from cleft_bundle.data.dicom.pixels import MONOCHROME
from cleft_bundle.data.dicom.sop_classes import why_no_image
from cleft_bundle.errors import RadiographError

decode_segment, _HAS_RLE = optional_import("rle.utils", name="decode_segment")
NATIVE = frozenset(
    map(
        str,
        (
            uid.ImplicitVRLittleEndian,
            uid.ExplicitVRLittleEndian,
            uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian,
        ),
    )
)
#: Kinds of compressed images (:attr:`Codestream.kind`) and the transfer syntaxes that are meant for each
KINDS = {
    "JPEG": ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"),
    "JPEG lossless": ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90"),
    "HTJ2K": ("1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.201"),
    "RLE": (str(uid.RLELossless),),
}
# Precisions that the standards allow (ITU-T T.81 table B.2, T.87 C.2.2); some decoders end the process over others
_DEPTHS = {"JPEG": (8, 12), "JPEG lossless": range(2, 17), "JPEG-LS": range(2, 17)}
_COMPRESSED = frozenset(syntax for syntaxes in KINDS.values() for syntax in syntaxes)
_COLOUR = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_CELLS = (1, 8, 16, 32)  # BitsAllocated
_BLOCK, _PADDING = 512, 1 << 16  # bytes behind the pixels that a writer may add to fill a block, and at most
_RLE_RATIO = 64  # two bytes stand for 128 at most, PS3.5 section G.3
_RLE_HEADER, _RLE_SEGMENTS = 64, 15  # bytes, and the most segments that they name, section G.5
_ITEM = b"\xfe\xff\x00\xe0"
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # of JPEG and JPEG-LS, JPEG 2000, its boxes


def syntax_of(ds: Any) -> str:
    """The transfer syntax UID of a data set that :func:`read_header` read."""
    return str(ds.file_meta.TransferSyntaxUID).strip(" \0")


def is_native(ds: Any) -> bool:
    """True where the pixel data lie uncompressed in the data set (which as a whole may be deflated)."""
    return syntax_of(ds) in NATIVE


def samples_of(ds: Any) -> int:
    """SamplesPerPixel; where it is missing, what the photometric interpretation needs."""
    return number(ds, "SamplesPerPixel", 3 if ds.get("PhotometricInterpretation") in _COLOUR[1:] else 1)


def frame_count(ds: Any) -> int:
    """NumberOfFrames, 1 where it is absent."""
    return number(ds, "NumberOfFrames", 1)


def check_object(ds: Any) -> None:
    """Check that a data set is an image, and in a transfer syntax that is read here.

    Raises:
        RadiographError: says what it is instead.
    """
    reason = why_no_image(ds)
    if reason:
        raise RadiographError(reason)
    syntax = syntax_of(ds)
    if syntax not in NATIVE | _COMPRESSED:
        valid = re.fullmatch(r"[0-9][0-9.]{0,63}", syntax)
        name = uid.UID(syntax).name if valid else ""
        said = f"{syntax}{f' ({name})' if name not in ('', syntax) else ''}" if valid else "no UID"
        raise RadiographError(f"{tag('TransferSyntaxUID')} is {said}: no decoder is known for it")


def check_header(ds: Any, max_pixels: int) -> None:
    """Check that the header describes an image, or several of one size, that the file can hold.

    Args:
        ds: the data set.
        max_pixels: largest Rows x Columns that is accepted.

    Raises:
        RadiographError: names the tag that is missing or cannot be true.
    """
    rows, columns = _positive(ds, "Rows"), _positive(ds, "Columns")
    photometric = ds.get("PhotometricInterpretation")
    if not photometric:
        raise RadiographError(f"{tag('PhotometricInterpretation')} is missing")
    if photometric not in (*MONOCHROME, *_COLOUR):
        known = ", ".join((*MONOCHROME, *_COLOUR))
        raise RadiographError(f"{tag('PhotometricInterpretation')} is not one of {known}")
    if rows * columns > max_pixels:
        raise RadiographError(
            f"{tag('Rows')} x {tag('Columns')} is {rows} x {columns}, more than the limit of {max_pixels} pixels"
        )
    samples = samples_of(ds)
    if samples != (3 if photometric in _COLOUR[1:] else 1):
        raise RadiographError(f"{tag('SamplesPerPixel')} is {samples}, which {photometric} does not allow")
    allocated = _positive(ds, "BitsAllocated")
    stored = _positive(ds, "BitsStored")
    high_bit = number(ds, "HighBit", stored - 1)
    if allocated not in _CELLS or not stored <= high_bit + 1 <= allocated:
        raise RadiographError(
            f"{tag('BitsStored')} {stored} and {tag('HighBit')} {high_bit} do not fit "
            f"{tag('BitsAllocated')} {allocated}"
        )
    if samples == 3 and stored != allocated and not is_native(ds):  # PS3.3 C.7.6.3.1.2; GDCM ends the process over it
        raise RadiographError(f"{tag('BitsStored')} is {stored}: {allocated} is expected of compressed colour")
    _check_length(ds, rows * columns * samples * allocated)


def _check_length(ds: Any, bits: int) -> None:
    """Compare the pixel data with what the header promises, `bits` for each frame when uncompressed."""
    data = ds.get("PixelData")
    if not data:
        raise RadiographError(f"{tag('PixelData')} is missing")
    if is_native(ds):
        if _is_encapsulated(data):
            raise RadiographError(
                f"{tag('PixelData')} is compressed, but {tag('TransferSyntaxUID')} says that it is not"
            )
        expected = (bits * frame_count(ds) + 7) // 8
        if ds.PhotometricInterpretation == "YBR_FULL_422":
            expected = expected * 2 // 3  # two pixels share their colour
    else:
        expected = (bits * frame_count(ds) // 8) // _RLE_RATIO if syntax_of(ds) == uid.RLELossless else 0
        _check_fragments(ds, data)
    if len(data) < expected:
        raise RadiographError(f"{tag('PixelData')} is truncated: {len(data)} bytes of {expected}")
    surplus = len(data) - expected
    if is_native(ds) and (2 * surplus >= expected > _BLOCK or surplus > _PADDING):
        raise RadiographError(
            f"{tag('PixelData')} holds {len(data)} bytes, but {tag('Rows')}, {tag('Columns')},"
            f" {tag('SamplesPerPixel')}, {tag('BitsAllocated')} and {tag('NumberOfFrames')} ask for {expected}"
        )


def _is_encapsulated(data: bytes) -> bool:
    """Whether pixel data begin with two items, the offset table and a fragment (PS3.5 section A.4)."""
    return data.startswith(_ITEM) and data.startswith(_ITEM, 8 + int.from_bytes(data[4:8], "little"))


def _check_fragments(ds: Any, data: bytes) -> None:
    """Compare NumberOfFrames with the fragments that begin an image; a frame may lie in several (PS3.5 section A.4)."""
    begun, position, table = 0, 0, True
    while data[position : position + 4] == _ITEM:
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start], "little")
        begun += not table and (data.startswith(_STARTS, start) or _starts_run_lengths(data, start))
        table = False
    if begun > frame_count(ds):
        raise RadiographError(f"{tag('NumberOfFrames')} is {frame_count(ds)}, but {begun} compressed images are there")


def _starts_run_lengths(data: bytes, start: int) -> bool:
    """Whether a fragment begins with the header of run lengths: their number, and where the first ones lie."""
    if len(data) < start + _RLE_HEADER:
        return False
    segments, first = struct.unpack_from("<II", data, start)
    return 1 <= segments <= _RLE_SEGMENTS and first == _RLE_HEADER


def _positive(ds: Any, name: str) -> int:
    """Return a whole number above 0, or raise a RadiographError that names the element."""
    found = numbers(ds, name)
    if not found:
        raise RadiographError(f"{tag(name)} is missing")
    if found[0] < 1:
        raise RadiographError(f"{tag(name)} is {found[0]:g}: a number above 0 is expected")
    return int(found[0])


def check_stream(ds: Any, data: bytes) -> Codestream:
    """Check that a compressed frame is whole, and of the size that the header says.

    Args:
        ds: a data set that passed :func:`check_header`.
        data: one frame.

    Raises:
        RadiographError: if it is not; names the tags that contradict it.
    """
    if syntax_of(ds) == uid.RLELossless:
        return _check_segments(ds, data)
    # Entropy-coded data never holds an end-of-image marker (ITU-T T.81 B.1.1.5, T.87, T.800 A), so its absence
    # shows that the end was cut off; some decoders return half an image then. Bytes of padding may follow it.
    if b"\xff\xd9" not in data[-64:]:
        raise RadiographError(f"{tag('PixelData')} is truncated: the compressed image has no end")
    try:
        stream = inspect(data)
    except RadiographError as e:
        raise RadiographError(f"{tag('PixelData')}: {e}") from None
    if stream is None:
        raise RadiographError(f"{tag('PixelData')} does not begin like a compressed image")
    rows, columns, samples = int(ds.Rows), int(ds.Columns), samples_of(ds)
    if stream[:3] != (rows, columns, samples):
        named = f"{tag('Rows')} x {tag('Columns')}" if stream[:2] != (rows, columns) else tag("SamplesPerPixel")
        raise RadiographError(
            f"{named} is {rows} x {columns} with {samples} samples,"
            f" but the compressed image is {stream.rows} x {stream.columns} with {stream.samples}"
        )
    stored = number(ds, "BitsStored", stream.bits)
    if samples == 3 and stream.bits != stored:
        raise RadiographError(f"{tag('BitsStored')} is {stored}, but the compressed image has {stream.bits} bits")
    if stream.bits not in _DEPTHS.get(stream.kind, range(1, 33)):
        raise RadiographError(f"{tag('PixelData')}: values of {stream.bits} bits are not read")
    return stream


def _check_segments(ds: Any, data: bytes) -> Codestream:
    """Check the header of run lengths, which has one segment for each byte of a pixel (PS3.5 section G.2)."""
    allocated, samples = int(ds.BitsAllocated), samples_of(ds)
    if len(data) < _RLE_HEADER:
        raise RadiographError(f"{tag('PixelData')} is truncated: the run lengths have no header")
    (segments,) = struct.unpack_from("<I", data)
    expected = samples * -(-allocated // 8)
    if segments != expected:
        raise RadiographError(
            f"{tag('BitsAllocated')} {allocated} and {tag('SamplesPerPixel')} {samples} need {expected} segments of"
            f" run lengths, but the compressed image has {segments}"
        )
    rows, columns = int(ds.Rows), int(ds.Columns)
    first, second = struct.unpack_from("<II", data, 4)
    if _HAS_RLE:  # decoders cut what is too much
        try:
            held = len(decode_segment(data[first : second or len(data)]))
        except Exception:  # what is wrong with it, decoders say
            held = 0
        if held > rows * columns + 1:  # one for padding to an even number
            raise RadiographError(
                f"{tag('Rows')} x {tag('Columns')} is {rows} x {columns}, but the compressed image has {held} pixels"
            )
    return Codestream(rows, columns, samples, 0, "RLE", allocated, signed=False)
