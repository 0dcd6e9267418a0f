"""One reader for radiographs as they come: DICOM, PNG, JPEG, TIFF and NIfTI.

Whatever the format, the result is float32, rows x columns as a person sees the image, 0..1, bright = dense.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple, optional_import
from PIL import ImageOps

from cleft_bundle.data.dicom.checks import check_header, check_object
from cleft_bundle.data.dicom.decoding import decode
from cleft_bundle.data.dicom.elements import tag
from cleft_bundle.data.dicom.header import choose_frame, describe, read_header
from cleft_bundle.data.dicom.layout import declared_layout
from cleft_bundle.data.dicom.lut import palette_to_rgb
from cleft_bundle.data.dicom.pixels import LEAST_LEVELS, MONOCHROME, Rendered, luminance, render, whole_range
from cleft_bundle.data.dicom.sop_classes import intent_of
from cleft_bundle.data.images.formats import SUFFIXES, known_format, picture_format, sniff
from cleft_bundle.data.images.large_pictures import load_picture, open_picture
from cleft_bundle.data.images.picture_notes import NAME, read_note
from cleft_bundle.data.quiet import mute_other_readers, quiet
from cleft_bundle.errors import RadiographError, one_line

nib, _ = optional_import("nibabel")

_TEXTS = (
    *("modality", "view", "laterality", "patient_orientation", "horizontal_flip", "photometric_interpretation"),
    *("view_source", "laterality_source", "traits", "decoder", "voi_applied"),
    *("manufacturer", "presentation_intent", "patient", "study"),
)
#: All that the metadata of an image may hold: nothing in it identifies a patient.
METADATA = frozenset(
    {
        *(MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE, MetaKeys.ORIGINAL_CHANNEL_DIM),
        *(MetaKeys.SPACE, "original_spacing", "blank", "orientation_applied", "orientation_seen", *_TEXTS),
    }
)
mute_other_readers()


@dataclass(frozen=True)
class RadiographFile:
    """Result of `RadiographReader.read`: a file that has not been opened yet."""

    path: str


class RadiographReader(ImageReader):
    """Read a radiograph as float32 [H, W] in 0..1: rows x columns, bright = dense.

    Use it in `LoadImaged(keys="image", reader=RadiographReader())`, or from a config as
    `{"_target_": "LoadImaged", "keys": "image", "reader": "$cleft_bundle.data.RadiographReader()"}`.

    `read` only notes the file; all work, and every error, is in `get_data`. MONAI's LoadImage answers an error of
    `read` by trying its stock readers, which would return the same file transposed and with another polarity.

    DICOM (CR, DX, MG, SC): decoding, unused bits, modality LUT or rescale, VOI, polarity, scaling to 0..1 over the
    output range of the VOI; pixel padding becomes 0. Without a VOI the range of the image's own values becomes 0..1;
    the same holds for PNG, JPEG, TIFF and NIfTI, which have none, so that one scene gives one tensor in any format. A
    file of `RadiographWriter` says of itself what its values mean, and they come back as they were.
    Colour becomes luminance (ITU-R BT.601), with one warning. Where a compressed image and the header around it
    contradict each other about the values, the compressed image decides, or the file is refused: see `dicom.layout`.

    NIfTI is taken as ITK, MONAI's SaveImage and MONAI Label write it: the first voxel axis runs along a row, the
    second down a column, shape (W, H) or (W, H, 1). The reader swaps the two and does not flip, whatever the affine
    says, because converters fill it in for a plane radiograph as they like.

    The metadata has the same keys for every format, and nothing in it is None, so that mixed batches collate:
    `affine` and `original_affine` (4 x 4, the spacing on the diagonal, 1 where unknown), `spatial_shape`,
    `original_channel_dim` (nan: no channel), `space`; `original_spacing` (float64 [2], mm between the rows and between
    the columns of the file, nan where unknown; that of a resized image is `geometry.pixel_spacing`); `blank` (whether
    all pixels but padding have one grey); and strings, "" where unknown: `modality`, `view`, `laterality`,
    `patient_orientation`, `horizontal_flip`, `photometric_interpretation`, `manufacturer` (one of `dicom.makers`),
    `presentation_intent`, `voi_applied` ("window 1", "lut 1", ..., "percentiles", "none": the whole range), and the
    pseudonyms `patient` and `study`. `view_source` and `laterality_source` say where view and side come from
    ("description" is a guess from free text), `traits` what sets the image apart (both: `dicom.views`), and `decoder`
    who decoded it. The image is never flipped: `patient_orientation` and `horizontal_flip` say what the header
    declares.

    Args:
        voi: "auto": the first window, or the first table in a file without windows; where it shows less than
            `dicom.pixels.LEAST_LEVELS` of the grey levels, as one that was written for another range of values does,
            the next that the file declares, and `percentiles` after the last, with a warning. Or the number of the
            window to use, from 0 (of the table, in a file that has tables and no windows), whatever it shows; "lut":
            the first VOI table where there is one; "percentile": ignore the file's VOI and stretch `percentiles`;
            "none": ignore it and stretch the whole range. A file with fewer windows than `voi` asks for is an error;
            one with no VOI at all is shown over the whole range.
        percentiles: two percentages of the pixels (padding left out), for `voi`="percentile" and "auto", and for
            `for_processing`.
        for_processing: "error", or "log" to show images whose Presentation Intent Type or SOP Class is FOR PROCESSING
            by the logarithm of the detector signal between `percentiles`.
        frame: of a multi-frame file, such as a tomosynthesis: the number of the frame (from 0), or "middle"; None
            makes such a file an error that names the number of its frames.
        target_size: None, or the size in pixels that the longer side is needed at: a grey JPEG 2000 or HTJ2K file is
            then decoded at the lowest resolution level that is not smaller. Saves most of the time; the result is
            approximate (a wavelet's low-pass band instead of the mean over an area) and must be shrunk afterwards.
            Other files are read in full.
        max_pixels: largest Rows x Columns that is read, in every format; 16 bits and 4 samples for each are what a
            deflated file may unfold to.

    Raises:
        RadiographError: if a parameter is not one of the above.

    Examples:
        >>> import numpy as np
        >>> from PIL import Image
        >>> Image.fromarray(np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)).save("image.png")
        >>> reader = RadiographReader()
        >>> image, meta = reader.get_data(reader.read("image.png"))
        >>> image.shape, image.dtype, float(image.max())
        ((4, 4), dtype('float32'), 1.0)
        >>> image[0].round(2)
        array([0.  , 0.07, 0.13, 0.2 ], dtype=float32)
    """

    def __init__(
        self,
        voi: int | str = "auto",
        percentiles: tuple[float, float] = (0.5, 99.5),
        for_processing: str = "error",
        frame: int | str | None = None,
        target_size: int | None = None,
        max_pixels: int = 100_000_000,
    ) -> None:
        super().__init__()
        if voi not in ("auto", "lut", "percentile", "none") and not (isinstance(voi, int) and voi >= 0):
            raise RadiographError(
                f"voi is {voi!r}: 'auto', a window's number, 'lut', 'percentile' or 'none' is expected"
            )
        if for_processing not in ("error", "log"):
            raise RadiographError(f"for_processing is {for_processing!r}: 'error' or 'log' is expected")
        if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise RadiographError(f"percentiles is {percentiles!r}: two rising numbers within 0..100 are expected")
        if not (frame is None or frame == "middle" or (isinstance(frame, int) and frame >= 0)):
            raise RadiographError(f"frame is {frame!r}: a frame's number, 'middle' or None is expected")
        if not (target_size is None or (isinstance(target_size, int) and target_size > 0)):
            raise RadiographError(f"target_size is {target_size!r}: a number of pixels or None is expected")
        self.voi = voi
        self.percentiles = (float(percentiles[0]), float(percentiles[1]))
        self.for_processing = for_processing
        self.frame = frame
        self.target_size = target_size
        self.max_pixels = max_pixels

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """True where this reader knows the format of the file or of all files, by content or else by suffix."""
        return all(
            str(name).lower().endswith(SUFFIXES) or (Path(name).is_file() and bool(sniff(str(name))))
            for name in ensure_tuple(filename)
        )

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> RadiographFile | list[RadiographFile]:
        """Note the file or files; nothing is opened, and nothing raised, before `get_data`."""
        files = [RadiographFile(str(name)) for name in ensure_tuple(data)]
        return files if len(files) > 1 else files[0]

    def get_data(self, img: RadiographFile | Sequence[RadiographFile]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read what `read` noted.

        Returns:
            float32 [H, W] in 0..1 and its metadata; of several files, which must agree in size, float32 [N, H, W]
            and the metadata of the first.

        Raises:
            RadiographError: if a file does not exist, is not an image, or cannot be read rightly.
        """
        files = ensure_tuple(img)
        results = [self._read_one(file.path) for file in files]
        image, meta = results[0]
        if len(files) > 1:
            for file, (other, _) in zip(files, results, strict=True):
                if other.shape != image.shape:
                    raise RadiographError(f"{file.path}: is {other.shape}, but {files[0].path} is {image.shape}")
            image = np.stack([image for image, _ in results])
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return image, meta

    def _read_one(self, path: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Read one file; whatever goes wrong becomes a RadiographError that names it.

        The error stands alone: an exception of a library, as its cause or context, would carry values of the header
        into every traceback.
        """
        try:
            kind = known_format(path)
            with quiet():
                rendered, details = getattr(self, f"_read_{kind}")(path)
        except RadiographError as e:
            wrong = str(e)
        except Exception as e:
            wrong = f"cannot be read: {_in_one_line(e, quoting=kind != 'dicom')}"
        else:
            _warn_of(path, rendered, details)
            return rendered.image, _metadata(rendered, details)
        raise RadiographError(f"{path}: {wrong}")

    def _read_dicom(self, path: str) -> tuple[Rendered, dict[str, Any]]:
        ds = read_header(path, max_bytes=8 * self.max_pixels)
        check_object(ds)
        frame = choose_frame(ds, self.frame)
        check_header(ds, self.max_pixels)
        details = describe(ds)
        log = details["presentation_intent"] == "FOR PROCESSING"
        if log and self.for_processing == "error":
            named = tag("SOPClassUID" if intent_of(ds) == "FOR PROCESSING" else "PresentationIntentType")
            raise RadiographError(f'{named} is FOR PROCESSING: not for viewing; for_processing="log" shows it')
        photometric = details["photometric_interpretation"]
        decoded = decode(ds, frame, self.target_size)
        details["decoder"] = decoded.decoder
        pixels = decoded.pixels
        if details["spacing"]:  # a lower resolution level has larger pixels
            height, width = details["spacing"]
            details["spacing"] = (height * (ds.Rows / pixels.shape[0]), width * (ds.Columns / pixels.shape[1]))
        little_endian = ds.file_meta.TransferSyntaxUID.is_little_endian
        if photometric == "PALETTE COLOR":
            layout = declared_layout(ds)
            pixels = palette_to_rgb(ds, layout.unpack(pixels), layout.signed, little_endian)
        if photometric not in MONOCHROME:
            return _grey(pixels), details | {"colour": True}
        choice = {"voi": self.voi, "percentile_range": self.percentiles, "log": log}
        return render(pixels, ds, little_endian=little_endian, depth=decoded.depth, **choice), details

    def _read_picture(self, path: str) -> tuple[Rendered, dict[str, Any]]:
        with open(path, "rb") as file:
            format_ = picture_format(file.read(8))
            file.seek(0)
            picture = open_picture(file, format_)
            self._check_size(picture.width, picture.height)
            frames = getattr(picture, "n_frames", 1)
            if frames != 1:
                raise RadiographError(f"holds {frames} images: one is expected")
            # Pillow inverts MINISWHITE (TIFF 6.0, PhotometricInterpretation 0) for 8 bits, but not for more
            white_is_low = getattr(picture, "tag_v2", {}).get(262) == 0 and picture.mode[0] in "IF"
            load_picture(picture)
            upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
            upright = upright.convert("RGB")
        elif upright.mode in ("LA", "La", "1"):
            upright = upright.convert("L")
        pixels = np.asarray(upright)
        note = read_note(picture.info.get(NAME) or getattr(picture, "tag_v2", {}).get(270), pixels)
        if note:
            return _plainly(note.values(pixels)), note.details
        if pixels.ndim == 3:
            return _grey(pixels), {"colour": True}
        image = _scaled(pixels)
        return (_plainly(1.0 - image) if white_is_low else _plainly(image)), {}

    def _read_nifti(self, path: str) -> tuple[Rendered, dict[str, Any]]:
        volume = nib.load(path)
        shape = volume.shape
        if len(shape) < 2 or any(size != 1 for size in shape[2:]):
            raise RadiographError(f"is an image of {' x '.join(map(str, shape))}: W x H or W x H x 1 is expected")
        self._check_size(shape[0], shape[1])
        pixels = np.asanyarray(volume.dataobj).reshape(shape[:2])
        if pixels.dtype.kind not in "iuf":
            raise RadiographError(f"holds values of type {pixels.dtype}: numbers are expected")
        for extension in volume.header.extensions:
            note = read_note(extension.get_content(), pixels.T)
            if note:
                return _plainly(note.values(pixels.T)), note.details
        width, height = (float(size) for size in volume.header.get_zooms()[:2])
        return _plainly(_scaled(pixels.T)), {"spacing": (height, width) if min(width, height) > 0 else None}

    def _check_size(self, width: int, height: int) -> None:
        if not 0 < width * height <= self.max_pixels:
            raise RadiographError(f"is {height} x {width}: 1 to {self.max_pixels} pixels are expected")


def _in_one_line(error: Exception, *, quoting: bool) -> str:
    """What a library says is wrong, without its text where that may quote the header."""
    text = one_line(error, None) if quoting else ""
    return text or f"{type(error).__name__} while it was read"


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Scale the range of the finite values to 0..1; float32, same shape."""
    image = whole_range(pixels)
    if image is None:
        raise RadiographError("holds no finite value")
    return image


def _plainly(image: np.ndarray) -> Rendered:
    """An image without anything that says how to show it."""
    image = np.ascontiguousarray(image, dtype=np.float32)
    return Rendered(image, "none", (), bool(image.min() == image.max()))


def _grey(colour: np.ndarray) -> Rendered:
    """Luminance of a colour image, [H, W, 3] -> float32 [H, W] over its whole range."""
    return _plainly(_scaled(luminance(colour)))


def _warn_of(path: str, rendered: Rendered, details: dict[str, Any]) -> None:
    """Warn of what a person should know of an image that was read; no value of its header is in it."""
    if details.get("colour"):
        _warn_of_colour()
    if rendered.blank:
        warnings.warn(f"{Path(path).name}: blank: all pixels but padding have one value", stacklevel=2)
    if rendered.passed_over:
        warnings.warn(
            f"{Path(path).name}: {', '.join(rendered.passed_over)} would show less than {LEAST_LEVELS:.0%} of the grey"
            f" levels; shown by {rendered.voi if rendered.voi != 'none' else 'the whole range'} instead",
            stacklevel=2,
        )


@cache
def _warn_of_colour() -> None:
    """Warn, once per process: Python's own memory of warnings is lost whenever a library changes the filters."""
    warnings.warn("a colour image is read as its luminance", stacklevel=2)


def _metadata(rendered: Rendered, details: dict[str, Any]) -> dict[str, Any]:
    """Metadata with the same keys and types for every format, from what is known of the file."""
    spacing = np.array(details.get("spacing") or (np.nan, np.nan), dtype=np.float64)
    affine = np.diag([*np.nan_to_num(spacing, nan=1.0), 1.0, 1.0])
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(rendered.image.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        MetaKeys.SPACE: SpaceKeys.RAS,
        "original_spacing": spacing,
        "blank": rendered.blank,
        **{name: details.get(name, "") for name in _TEXTS},
        "voi_applied": rendered.voi,
    }
