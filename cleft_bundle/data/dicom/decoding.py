"""Decoding of DICOM pixel data: which decoder is asked in which order, and with what.

No decoder sees the file. It is given a data set that holds one frame and what `checks` found true of it: of a
compressed frame, precision, sign and format as the frame itself says, since decoders trust the header and wrap values
that do not fit. The decoders are plug-ins of pydicom, asked by name in the order of `DECODERS`, behind NVIDIA's
nvImageCodec where there is one; GDCM's own reader is asked last. The error lists what each said. Works with pydicom
2.4 (handlers) and 3 (decoders).
"""

from __future__ import annotations

import re
import tempfile
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from cleft_bundle.data.dicom import gpu_decoding
from cleft_bundle.data.dicom.checks import KINDS, check_stream, frame_count, is_native, samples_of, syntax_of
from cleft_bundle.data.dicom.codestreams import Codestream, decode_reduced, without_boxes
from cleft_bundle.data.dicom.elements import number, tag
from cleft_bundle.data.dicom.layout import Depth
from cleft_bundle.data.quiet import mute_decoder, quiet
from cleft_bundle.errors import RadiographError, one_line

get_decoder, _HAS_DECODERS = optional_import("pydicom.pixels", name="get_decoder")
get_frame, _HAS_FRAMES = optional_import("pydicom.encaps", name="get_frame")
_PROCESSING = "pydicom.pixels" if _HAS_DECODERS else "pydicom.pixel_data_handlers.util"

#: Decoders of each kind of compressed image, in the order in which they are asked
DECODERS = {
    "JPEG": ("gdcm", "pillow", "pylibjpeg", "gdcm reader"),
    "JPEG lossless": ("gdcm", "pylibjpeg", "gdcm reader"),
    "JPEG-LS": ("pyjpegls", "gdcm", "pylibjpeg", "gdcm reader"),
    "JPEG 2000": ("gdcm", "pylibjpeg", "pillow", "gdcm reader"),
    "HTJ2K": ("pylibjpeg",),
    "RLE": ("pylibjpeg", "pydicom", "gdcm reader"),
}
_HANDLERS = {"pydicom": "rle", "pyjpegls": "jpeg_ls"}  # pydicom 2.4's names, where they differ


class Decoded(NamedTuple):
    """One decoded frame.

    Attributes:
        pixels: integer pixel cells: [H, W] for one sample a pixel, [H, W, 3] red, green, blue otherwise.
        depth: what the compressed frame says of its values; None of native pixel data.
        decoder: who decoded it: "numpy" for native pixel data.
    """

    pixels: np.ndarray
    depth: Depth | None
    decoder: str


def decode(ds: Any, frame: int = 0, target_size: int | None = None) -> Decoded:
    """Decode the pixel data of a data set that passed `check_header`.

    Args:
        ds: the data set; PixelRepresentation changes where the compressed image can hold no signed values.
        frame: number of the frame, from 0.
        target_size: if given, a grey JPEG 2000 image is decoded at the lowest resolution level whose longer side still
            has this many pixels; see `codestreams.decode_reduced`.

    Raises:
        RadiographError: if the compressed image is not what the header says, or no decoder can read it; lists what
            each said, in one line.
    """
    if is_native(ds):
        return _first_right(ds, _plain_native(ds), ("numpy",), frame, [], None)
    data = without_boxes(_compressed_frame(ds, frame))
    stream = check_stream(ds, data)
    if stream.kind == "JPEG":  # with a cosine transform, values have no sign (PS3.5 section 8.2.1)
        ds.PixelRepresentation = 0
    depth = Depth(stream.bits, stream.signed)
    said: list[str] = []
    halvings = min(stream.levels, _halvings(max(stream.rows, stream.columns), target_size))
    if halvings:
        try:
            with mute_decoder():
                return Decoded(decode_reduced(data, halvings), depth, "pillow")
        except Exception as e:  # a decoder may raise anything; the full image is still to be had
            said.append(f"level {halvings}: {_in_short(e)}")
    plain = _plain(ds, stream, data)
    names = (*gpu_decoding.decoders(plain), *DECODERS.get(stream.kind, ()))
    if stream.bits < 8:  # GDCM ends the process over values that do not fill their cells
        names = tuple(name for name in names if not name.startswith("gdcm"))
    return _first_right(ds, plain, names, 0, said, depth)


def _first_right(
    ds: Any, plain: Dataset, names: tuple[str, ...], frame: int, said: list[str], depth: Depth | None
) -> Decoded:
    """Ask decoders until one gives an image of the right shape."""
    shape = (int(ds.Rows), int(ds.Columns))
    axes = 2 if samples_of(ds) == 1 else 3
    for name in names:
        try:
            with quiet(), mute_decoder():
                pixels = _ask(name, plain, frame)
        except (KeyboardInterrupt, SystemExit):
            raise
        # A decoder may raise anything at all on bad data (those in Rust not even an Exception); it is kept for the
        # message.
        except BaseException as e:
            said.append(f"{name}: {_in_short(e)}")
            continue
        if pixels.shape[:2] == shape and pixels.ndim == axes and pixels.dtype.kind in "iu":
            # big-endian files come as they are
            return Decoded(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), depth, name)
        said.append(f"{name}: gave an image of {' x '.join(map(str, pixels.shape))}")
    syntax = uid.UID(syntax_of(ds)).name
    raise RadiographError(f"{tag('PixelData')}, {syntax}, cannot be decoded ({'; '.join(said) or 'no decoder'})")


def _plain_native(ds: Any) -> Dataset:
    """A data set of native pixels and of what they need to be read, all of it numbers that were checked."""
    plain = _described(ds, syntax_of(ds), int(ds.BitsAllocated), signed=False)
    plain.BitsStored, plain.HighBit = int(ds.BitsAllocated), int(ds.BitsAllocated) - 1
    plain.NumberOfFrames = frame_count(ds)
    plain.PixelData = ds.PixelData
    plain["PixelData"].VR = ds["PixelData"].VR if ds["PixelData"].VR in ("OB", "OW") else "OW"
    return plain


def _plain(ds: Any, stream: Codestream, data: bytes) -> Dataset:
    """A data set of one compressed frame, described as the frame describes itself."""
    syntaxes = KINDS.get(stream.kind, (syntax_of(ds),))
    syntax = syntax_of(ds) if syntax_of(ds) in syntaxes else syntaxes[0]
    if stream.kind == "JPEG" and stream.bits > 8:
        syntax = str(uid.JPEGExtended12Bit)
    plain = _described(ds, syntax, next(size for size in (8, 16, 32) if stream.bits <= size), stream.signed)
    plain.BitsStored, plain.HighBit = stream.bits, stream.bits - 1
    plain.PixelData = encapsulate([data])
    plain["PixelData"].VR, plain["PixelData"].is_undefined_length = "OB", True
    return plain


def _described(ds: Any, syntax: str, bits_allocated: int, signed: bool) -> Dataset:
    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = uid.UID(syntax)
    plain.SOPClassUID, plain.SOPInstanceUID = uid.SecondaryCaptureImageStorage, uid.generate_uid()
    plain.SamplesPerPixel = samples_of(ds)
    # a palette's numbers are grey values to a decoder, and no decoder is to invert anything
    plain.PhotometricInterpretation = "MONOCHROME2" if plain.SamplesPerPixel == 1 else ds.PhotometricInterpretation
    if plain.SamplesPerPixel > 1:
        plain.PlanarConfiguration = number(ds, "PlanarConfiguration", 0)
    plain.Rows, plain.Columns = int(ds.Rows), int(ds.Columns)
    plain.BitsAllocated, plain.PixelRepresentation = bits_allocated, int(signed)
    if not _HAS_DECODERS:
        plain.is_little_endian, plain.is_implicit_VR = ds.is_little_endian, ds.is_implicit_VR
    return plain


def _compressed_frame(ds: Any, frame: int) -> bytes:
    """Return the bytes of one compressed frame (PS3.5 section A.4)."""
    count = frame_count(ds)
    try:
        with quiet():
            if _HAS_FRAMES:
                table = (ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths"))
                offsets = table if all(table) else None
                return get_frame(ds.PixelData, frame, number_of_frames=count, extended_offsets=offsets)
            generate, _ = optional_import("pydicom.encaps", name="generate_pixel_data_frame")
            return next(islice(generate(ds.PixelData, count), frame, None))
    except Exception:  # whatever is wrong with the container shows as an error of any kind
        raise RadiographError(f"{tag('PixelData')} is not divided into frames") from None


def _halvings(size: int, target_size: int | None) -> int:
    """How often `size` can be halved and stay at or above `target_size`."""
    return max(size // target_size, 1).bit_length() - 1 if target_size else 0


def _ask(name: str, plain: Dataset, frame: int) -> np.ndarray:
    """Decode one frame with one decoder, by its name."""
    if name == gpu_decoding.NAME:
        return gpu_decoding.decode(plain)
    return _ask_gdcm_reader(plain) if name == "gdcm reader" else _ask_pydicom(plain, name, frame)


def _ask_pydicom(plain: Dataset, name: str, frame: int) -> np.ndarray:
    """Decode one frame with one of pydicom's plug-ins."""
    native = name == "numpy"
    if _HAS_DECODERS:
        # The unused bits are ours to remove: pydicom assumes that they lie above the value.
        options = {"view_only": True} if native else {"decoding_plugin": name}
        return get_decoder(plain.file_meta.TransferSyntaxUID).as_array(
            plain, index=frame, correct_unused_bits=False, **options
        )[0]
    plain.convert_pixel_data(name if native else _HANDLERS.get(name, name))
    pixels = plain.pixel_array if frame_count(plain) == 1 else plain.pixel_array[frame]
    if str(plain.PhotometricInterpretation).startswith("YBR_FULL"):
        convert, _ = optional_import(_PROCESSING, name="convert_color_space")
        pixels = convert(pixels, plain.PhotometricInterpretation, "RGB")
    return pixels


def _ask_gdcm_reader(plain: Dataset) -> np.ndarray:
    """Decode one grey frame with GDCM's reader of files, which can do more than pydicom's plug-in of it.

    Of 12-bit JPEG, for one: the plug-in refuses it.
    """
    gdcm, found = optional_import("gdcm")
    if not found:
        raise RuntimeError("not installed")
    if plain.SamplesPerPixel != 1:
        raise RuntimeError("is used for grey images only")
    plain.preamble = bytes(128)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/frame.dcm"
        plain.save_as(file)
        reader = gdcm.ImageReader()
        reader.SetFileName(file)
        if not reader.Read():
            raise RuntimeError("cannot read it")
        image = reader.GetImage()
        cells = image.GetBuffer().encode("utf-8", "surrogateescape")
        form = image.GetPixelFormat()
        kind = "i" if form.GetPixelRepresentation() else "u"
        return np.frombuffer(cells, f"{kind}{form.GetBitsAllocated() // 8}").reshape(plain.Rows, plain.Columns)


def _in_short(error: BaseException) -> str:
    """Say an exception in one short line, without pydicom's preamble about all plug-ins."""
    text = str(error).rpartition("by all available plugins:")[2]
    text = re.sub(r"^\s*\w+: ", "", text) if "available plugins" in str(error) else text
    return one_line(text, 160) or type(error).__name__
