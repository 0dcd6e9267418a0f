"""Decoding of DICOM pixel data: what is checked before, and which decoder is asked in which order.

Checks come before memory is taken: the size that the header claims is compared with the bytes that are there and with
the size that a compressed stream claims for itself. The decoders are plug-ins of pydicom, asked by name in the order of
`DECODERS`, and ITK last; the error lists what each said. Works with pydicom 2.4 (handlers) and 3 (decoders).
"""

from __future__ import annotations

import re
import tempfile
import warnings
from itertools import islice
from typing import Any

import numpy as np
from monai.utils import optional_import
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from cleft_bundle.data.codestreams import Codestream, decode_reduced, inspect
from cleft_bundle.data.dicom_pixels import MONOCHROME, numbers, tag
from cleft_bundle.errors import RadiographError

get_decoder, _HAS_DECODERS = optional_import("pydicom.pixels", name="get_decoder")
get_frame, _HAS_FRAMES = optional_import("pydicom.encaps", name="get_frame")
_PROCESSING = "pydicom.pixels" if _HAS_DECODERS else "pydicom.pixel_data_handlers.util"

_JPEG = ("gdcm", "pillow", "pylibjpeg")
_JPEG_LOSSLESS = ("gdcm", "pylibjpeg")
_JPEG_LS = ("pyjpegls", "gdcm", "pylibjpeg")
_JPEG_2000 = ("gdcm", "pylibjpeg", "pillow")
DECODERS: dict[str, tuple[str, ...]] = {
    str(uid.JPEGBaseline8Bit): _JPEG,
    str(uid.JPEGExtended12Bit): _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG_LOSSLESS,  # any selection value; pydicom 2.4 and 3 disagree about its name
    str(uid.JPEGLosslessSV1): _JPEG_LOSSLESS,
    str(uid.JPEGLSLossless): _JPEG_LS,
    str(uid.JPEGLSNearLossless): _JPEG_LS,
    str(uid.JPEG2000Lossless): _JPEG_2000,
    str(uid.JPEG2000): _JPEG_2000,
    "1.2.840.10008.1.2.4.201": ("pylibjpeg",),  # HTJ2K lossless, which pydicom 2.4 has no name for
    "1.2.840.10008.1.2.4.202": ("pylibjpeg",),  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.203": ("pylibjpeg",),  # HTJ2K
    str(uid.RLELossless): ("pylibjpeg", "pydicom"),
}
_LEVELLED = {str(syntax) for syntax in (uid.JPEG2000Lossless, uid.JPEG2000)} | {
    f"1.2.840.10008.1.2.4.20{n}" for n in (1, 2, 3)
}
_RLE_RATIO = 64  # two bytes stand for 128 at most, PS3.5 section G.3
_HANDLERS = {"pydicom": "rle", "pyjpegls": "jpeg_ls"}  # pydicom 2.4's names, where they differ
_COLOUR = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_CELLS = (1, 8, 16, 32)  # BitsAllocated


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
    samples = int((numbers(ds, "SamplesPerPixel") or [1])[0])
    if samples != (3 if photometric in _COLOUR[1:] else 1):
        raise RadiographError(f"{tag('SamplesPerPixel')} is {samples}, which {photometric} does not allow")
    allocated = _positive(ds, "BitsAllocated")
    stored = _positive(ds, "BitsStored")
    high_bit = int((numbers(ds, "HighBit") or [stored - 1])[0])
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
        expected = (bits * frame_count(ds) + 7) // 8
        if ds.PhotometricInterpretation == "YBR_FULL_422":
            expected = expected * 2 // 3  # two pixels share their colour
    elif ds.file_meta.TransferSyntaxUID == uid.RLELossless:
        expected = (bits * frame_count(ds) // 8) // _RLE_RATIO
    else:
        return
    if len(data) < expected:
        raise RadiographError(f"{tag('PixelData')} is truncated: {len(data)} bytes of {expected}")


def is_native(ds: Any) -> bool:
    """Whether the pixel data lie uncompressed in the data set (which as a whole may be deflated)."""
    syntax = ds.file_meta.TransferSyntaxUID
    return not syntax.is_compressed or syntax.is_deflated


def frame_count(ds: Any) -> int:
    """NumberOfFrames, 1 where it is absent."""
    return int((numbers(ds, "NumberOfFrames") or [1])[0])


def _positive(ds: Any, name: str) -> int:
    """Return a whole number above 0, or raise a RadiographError that names the element."""
    found = numbers(ds, name)
    if not found:
        raise RadiographError(f"{tag(name)} is missing")
    if found[0] < 1:
        raise RadiographError(f"{tag(name)} is {found[0]:g}: a number above 0 is expected")
    return int(found[0])


def decode(ds: Any, frame: int = 0, target_size: int | None = None) -> np.ndarray:
    """Decode the pixel data of a data set that passed `check_header`.

    Args:
        ds: the data set.
        frame: number of the frame, from 0.
        target_size: if given, a grey JPEG 2000 image is decoded at the lowest resolution level whose longer side still
            has this many pixels; see `codestreams.decode_reduced`.

    Returns:
        integer pixel cells: [H, W] for one sample a pixel, [H, W, 3] red, green, blue otherwise.

    Raises:
        RadiographError: if the compressed image is not what the header says, or no decoder can read it; lists what
            each said, in one line.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    native = is_native(ds)
    if not native and str(syntax) not in DECODERS:
        raise RadiographError(f"{tag('TransferSyntaxUID')} {syntax}: no decoder is known for it")
    shape = (int(ds.Rows), int(ds.Columns))
    said = []
    if not native:
        data = _compressed_frame(ds, frame)
        levels = 0 if syntax == uid.RLELossless else _check_stream(ds, data)
        halvings = min(levels, _halvings(max(shape), target_size))
        if halvings and str(syntax) in _LEVELLED:
            try:
                ds.decoder = f"openjpeg, level {halvings}"
                return decode_reduced(data, halvings)
            except Exception as e:  # a decoder may raise anything; the full image is still to be had
                said.append(f"level {halvings}: {_one_line(e)}")
    for name in ("numpy",) if native else (*DECODERS[str(syntax)], "itk"):
        try:
            pixels = _ask_itk(ds, data) if name == "itk" else _ask_pydicom(ds, name, native, frame)
        except (KeyboardInterrupt, SystemExit):
            raise
        # A decoder may raise anything at all on bad data (those in Rust not even an Exception); it is kept for the
        # message.
        except BaseException as e:
            said.append(f"{name}: {_one_line(e)}")
            continue
        if pixels.shape[:2] == shape and pixels.ndim == (2 if int(ds.get("SamplesPerPixel") or 1) == 1 else 3):
            ds.decoder = name
            return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)  # big-endian files come as they are
        said.append(f"{name}: gave an image of {' x '.join(map(str, pixels.shape))}")
    raise RadiographError(f"{tag('PixelData')}, {syntax.name}, cannot be decoded ({'; '.join(said)})")


def _compressed_frame(ds: Any, frame: int) -> bytes:
    """Return the bytes of one compressed frame (PS3.5 section A.4)."""
    count = frame_count(ds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _HAS_FRAMES:
                table = (ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths"))
                offsets = table if all(table) else None
                return get_frame(ds.PixelData, frame, number_of_frames=count, extended_offsets=offsets)
            generate, _ = optional_import("pydicom.encaps", name="generate_pixel_data_frame")
            return next(islice(generate(ds.PixelData, count), frame, None))
    except Exception as e:  # whatever is wrong with the container shows as an error of any kind
        raise RadiographError(f"{tag('PixelData')} is not divided into frames: {_one_line(e)}") from e


def _check_stream(ds: Any, data: bytes) -> int:
    """Check that a compressed image is whole and as large as the header says; return its lower resolution levels."""
    # Entropy-coded data never holds an end-of-image marker (ITU-T T.81 B.1.1.5, T.87, T.800 A), so its absence
    # shows that the end was cut off; some decoders return half an image then. Bytes of padding may follow it.
    if b"\xff\xd9" not in data[-64:]:
        raise RadiographError(f"{tag('PixelData')} is truncated: the compressed image has no end")
    try:
        stream = inspect(data)
    except RadiographError as e:
        raise RadiographError(f"{tag('PixelData')}: {e}") from e
    if stream is None:
        raise RadiographError(f"{tag('PixelData')} does not begin like a compressed image")
    promised = Codestream(int(ds.Rows), int(ds.Columns), int(ds.get("SamplesPerPixel") or 1), stream.levels)
    if stream != promised:
        raise RadiographError(
            f"{tag('Rows')} x {tag('Columns')} is {promised.rows} x {promised.columns} with {promised.samples} samples,"
            f" but the compressed image is {stream.rows} x {stream.columns} with {stream.samples}"
        )
    return stream.levels


def _halvings(size: int, target_size: int | None) -> int:
    """How often `size` can be halved and stay at or above `target_size`."""
    return max(size // target_size, 1).bit_length() - 1 if target_size else 0


def _ask_pydicom(ds: Any, name: str, native: bool, frame: int) -> np.ndarray:
    """Decode one frame with one of pydicom's plug-ins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about trailing bytes and the like; what matters is checked in check_header
        if _HAS_DECODERS:
            # The unused bits are ours to remove: pydicom assumes that they lie above the value.
            options = {"view_only": True} if native else {"decoding_plugin": name}
            return get_decoder(ds.file_meta.TransferSyntaxUID).as_array(
                ds, index=frame, correct_unused_bits=False, **options
            )[0]
        ds.convert_pixel_data(name if native else _HANDLERS.get(name, name))
        pixels = ds.pixel_array if frame_count(ds) == 1 else ds.pixel_array[frame]
        if str(ds.PhotometricInterpretation).startswith("YBR_FULL"):
            convert, _ = optional_import(_PROCESSING, name="convert_color_space")
            pixels = convert(pixels, ds.PhotometricInterpretation, "RGB")
        return pixels


def _ask_itk(ds: Any, data: bytes) -> np.ndarray:
    """Decode one grey frame with ITK, from a temporary file that holds the frame and its format and nothing else.

    From the file itself ITK would also invert, rescale and read whatever else is in it, however damaged.
    """
    itk, found = optional_import("itk")
    if not found:
        raise RuntimeError("not installed")
    if ds.PhotometricInterpretation not in MONOCHROME:
        raise RuntimeError("is used for monochrome images only")
    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ds.file_meta.TransferSyntaxUID
    plain.SOPClassUID, plain.SOPInstanceUID = uid.SecondaryCaptureImageStorage, uid.generate_uid()
    plain.PhotometricInterpretation, plain.SamplesPerPixel = "MONOCHROME2", 1
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(plain, name, int(ds.get(name) or 0))
    plain.PixelData = encapsulate([data])
    plain["PixelData"].VR, plain["PixelData"].is_undefined_length = "OB", True
    if not _HAS_DECODERS:
        plain.is_little_endian, plain.is_implicit_VR = True, False
    plain.preamble = bytes(128)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/frame.dcm"
        plain.save_as(file)
        # by its DICOM reader alone: the search for another one takes a second and much memory
        return np.squeeze(itk.array_from_image(itk.imread(file, imageio=itk.GDCMImageIO.New())))


def palette_to_rgb(ds: Any, pixels: np.ndarray) -> np.ndarray:
    """Look up the colours of a PALETTE COLOR image, [H, W] -> [H, W, 3]."""
    apply_color_lut, _ = optional_import(_PROCESSING, name="apply_color_lut")
    return apply_color_lut(pixels, ds)


def _one_line(error: BaseException) -> str:
    """Say an exception in one short line, without pydicom's preamble about all plug-ins."""
    text = str(error).rpartition("by all available plugins:")[2]
    text = re.sub(r"^\s*\w+: ", "", text) if "available plugins" in str(error) else text
    return " ".join(text.split())[:160] or type(error).__name__
