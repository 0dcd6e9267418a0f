"""Writing radiographs so that `RadiographReader` reads back what was written: PNG, TIFF, NIfTI and DICOM."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageWriter
from monai.utils import MetaKeys, convert_data_type, optional_import
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cleft_bundle.data.dicom.results import derived_image, read_source, save_result
from cleft_bundle.data.images.geometry import patient_orientation, pixel_spacing
from cleft_bundle.data.images.picture_notes import DEPTH, NAME, Note, count_levels, known_texts
from cleft_bundle.errors import RadiographError, require_one_of
from cleft_bundle.files import replacing

nib, _ = optional_import("nibabel")

IDENTITIES = ("none", "pseudonym", "source")
_SLACK = 1e-4  # what interpolation may put beyond 0..1; it is cut off
_IMAGE_DESCRIPTION, _RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION = 270, 296, 282, 283  # TIFF 6.0
_CENTIMETRE = 3


class RadiographWriter(ImageWriter):
    r"""Write a radiograph, float [1, H, W] in 0..1, rows x columns, bright = dense, as a file of the suffix given.

    It stands in MONAI's `SaveImaged(writer="cleft_bundle.data.RadiographWriter", output_ext=".png")` as well as in
    `SaveRadiographd`. Rows stay rows: MONAI's own writers take the first axis for the columns of a picture, and write
    an image of `RadiographReader` transposed.

    | suffix | pixels | what a value becomes |
    | --- | --- | --- |
    | .png | 16-bit integers | `round(65535 * value)`, in steps of 1 / 65535 |
    | .tif, .tiff | 32-bit floats | itself |
    | .nii, .nii.gz | 32-bit floats | itself |
    | .dcm | up to 16-bit integers, Secondary Capture | `round(n * value)`, n = 65535 or less |

    Integers are exact for what fits into them: where all values are multiples of 1 / n for a whole number n up to
    65535, as those of a file of up to 16 bits are over its whole range, they come back as they were; n stands in the
    file. Others, such as those of a resized image, come back within 1 / 131070.

    Size of the pixels, orientation, side, view and modality are kept, as they are after all transforms that the affine
    knows of. The file that is written begins anew: its affine holds the spacing alone. Nothing else of the metadata is
    written, and nothing of the patient unless `identity` says so.

    Args:
        output_dtype: of MONAI's SaveImage; the suffix decides instead.
        scale: of MONAI's SaveImage; values are always 0..1.
        identity: who a DICOM file belongs to. "none": nobody; patient and study are empty, all UIDs new. "pseudonym":
            the pseudonyms that the reader gave patient and study. "source": patient and study are copied from the
            DICOM file that the image was read from, into whose record the new file then belongs.
        kwargs: as in MONAI's ImageWriter.

    Raises:
        BundleError: if `identity` is none of these, or a DICOM file is to be written without highdicom (extra `sr`);
            on writing, RadiographError naming the file if its suffix is not known, or the image is not such as above.

    Examples:
        >>> import numpy as np
        >>> from PIL import Image
        >>> writer = RadiographWriter()
        >>> writer.set_data_array(np.linspace(0, 1, 16).reshape(1, 4, 4))
        >>> writer.write("written.png")
        >>> Image.open("written.png").size
        (4, 4)
    """

    def __init__(self, output_dtype: Any = None, scale: int | None = None, identity: str = "none", **kwargs: Any):
        require_one_of("identity", identity, IDENTITIES)
        super().__init__(output_dtype=output_dtype, scale=scale, identity=identity, **kwargs)
        self.data_obj: Any = None
        self.meta: dict[str, Any] = {}

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_: Any) -> None:
        """Take the image: an array or tensor [1, H, W], three equal channels, or [H, W] where `channel_dim` is None."""
        array = np.asarray(convert_data_type(data_array, np.ndarray, dtype=np.float32)[0])
        channels = array[None] if channel_dim is None or array.ndim == 2 else np.moveaxis(array, channel_dim, 0)
        alike = channels.ndim == 3 and len(channels) in (1, 3) and _all_equal(channels)
        if not alike or not channels.size:
            raise RadiographError(f"an image of the shape {list(array.shape)}: [1, rows, columns] is expected")
        self.data_obj = np.ascontiguousarray(channels[0])

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, resample: bool = False, **options: Any) -> None:
        """Take the metadata; with `resample`, bring the image back to the grid that it was read on, as MONAI does."""
        self.meta = dict(meta_dict or {})
        if resample and self.meta:
            original, affine, shape = self.get_meta_info(self.meta)
            shape = None if shape is None else tuple(int(size) for size in shape)[-2:]
            given = {key: value for key, value in options.items() if value is not None}
            image, _ = self.resample_if_needed(self.data_obj, affine, original, shape, **given)
            self.data_obj = np.ascontiguousarray(image, dtype=np.float32)
            self.meta[MetaKeys.AFFINE] = original

    def write(self, filename: PathLike, verbose: bool = False, **_: Any) -> None:
        """Write what was taken, at once or not at all."""
        super().write(filename, verbose=verbose)
        path = Path(filename)
        try:
            self._writer(path)(self._checked(), path)
        except RadiographError as error:
            raise RadiographError(f"{path}: {error}") from error

    def _writer(self, path: Path) -> Callable[[np.ndarray, Path], None]:
        name = path.name.lower()
        writers = {".png": self._png, ".tif": self._tiff, ".tiff": self._tiff, ".dcm": self._dicom}
        writers |= {".nii": self._nifti, ".nii.gz": self._nifti}
        found = [suffix for suffix in writers if name.endswith(suffix)]
        if not found:
            raise RadiographError(f"the suffix is not known: expected one of {', '.join(writers)}")
        if path.resolve() == Path(str(self.meta.get("filename_or_obj", ""))).resolve():
            raise RadiographError("is the file that the image was read from: it is not overwritten")
        return writers[found[0]]

    def _checked(self) -> np.ndarray:
        if self.data_obj is None:
            raise RadiographError("there is no image to write: set_data_array comes first")
        low, high = float(self.data_obj.min()), float(self.data_obj.max())
        if not -_SLACK <= low <= high <= 1 + _SLACK:
            raise RadiographError(f"an image of {low:g} to {high:g}: values of 0 to 1 are expected")
        return np.clip(self.data_obj, 0.0, 1.0)

    def _note(self, image: np.ndarray, dtype: str, levels: int | None = None) -> Note:
        texts = known_texts({**self.meta, "patient_orientation": patient_orientation(self.meta)})
        return Note((image.shape[0], image.shape[1]), dtype, levels, self._spacing(), texts)

    def _spacing(self) -> tuple[float, float] | None:
        return pixel_spacing(self.meta) if MetaKeys.AFFINE in self.meta else None

    def _png(self, image: np.ndarray, path: Path) -> None:
        info = PngInfo()
        info.add_text(NAME, self._note(image, "uint16", count_levels(image)).text())
        picture = Image.fromarray(np.rint(image.astype(np.float64) * DEPTH).astype(np.uint16))
        with replacing(path) as temporary:
            picture.save(temporary, "PNG", pnginfo=info)

    def _tiff(self, image: np.ndarray, path: Path) -> None:
        note = self._note(image, "float32")
        tags: dict[int, Any] = {_IMAGE_DESCRIPTION: note.text()}
        if note.spacing:
            pixels_per_cm = {_X_RESOLUTION: 10 / note.spacing[1], _Y_RESOLUTION: 10 / note.spacing[0]}
            tags |= {_RESOLUTION_UNIT: _CENTIMETRE, **pixels_per_cm}
        with replacing(path) as temporary:
            Image.fromarray(image).save(temporary, "TIFF", tiffinfo=tags)

    def _nifti(self, image: np.ndarray, path: Path) -> None:
        note = self._note(image, "float32")
        height, width = note.spacing or (1.0, 1.0)
        # the first voxel axis runs along a row, as ITK has it; the signs are those of LPS in NIfTI's RAS
        volume = nib.Nifti1Image(image.T[:, :, None], np.diag([-width, -height, 1.0, 1.0]))
        volume.header.set_xyzt_units("mm")
        volume.header.extensions.append(nib.nifti1.Nifti1Extension("comment", note.text().encode()))
        content = volume.to_bytes()
        with replacing(path) as temporary:
            temporary.write_bytes(gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)

    def _dicom(self, image: np.ndarray, path: Path) -> None:
        levels = count_levels(image) or DEPTH
        note = self._note(image, "uint16", levels)
        source = None
        if self.identity == "source":
            origin = str(self.meta.get("filename_or_obj", ""))
            if not Path(origin).is_file():
                raise RadiographError('identity="source": the file that the image was read from is not there')
            source = read_source(origin)
        known = {name: str(self.meta.get(name, "")) for name in ("patient", "study")}
        pseudonyms = known if self.identity == "pseudonym" else {}
        stored = np.rint(image.astype(np.float64) * levels).astype(np.uint16)
        save_result(derived_image(stored, levels, note.spacing, note.texts, source=source, **pseudonyms), path)


def _all_equal(channels: np.ndarray) -> bool:
    return all(np.array_equal(channels[0], channel, equal_nan=True) for channel in channels[1:])
