"""Compressing and writing DICOM files, with pydicom 3 and with pydicom 2, which has an encoder for RLE only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jpeg_ls import encode_pixel_data
from monai.utils import optional_import
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless

from cleft_bundle.errors import BundleError

_, _PYDICOM_3 = optional_import("pydicom.pixels")


def compress(ds: Dataset, syntax: UID) -> None:
    """Compress the pixels of a grey image without loss, in place.

    Args:
        ds: a dataset with its ``file_meta``, uncompressed.
        syntax: RLE, JPEG-LS or JPEG 2000, lossless; with pydicom 3 whatever it can encode.

    Raises:
        BundleError: where pydicom 2 cannot encode the syntax.
    """
    if _PYDICOM_3:
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax in (JPEGLSLossless, JPEG2000Lossless):
        encode = _jpeg_ls if syntax == JPEGLSLossless else _jpeg_2000
        stored = ds.pixel_array
        ds.PixelData = encapsulate([encode(frame, ds.BitsStored) for frame in stored.reshape(-1, *stored.shape[-2:])])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
    else:
        try:
            ds.compress(syntax)
        except NotImplementedError as error:
            raise BundleError(f"pydicom 2 has no encoder for {syntax.name}; pydicom 3 has") from error


def _jpeg_ls(frame: np.ndarray, bits: int) -> bytes:
    shape = {"rows": frame.shape[0], "columns": frame.shape[1], "samples_per_pixel": 1}
    return bytes(encode_pixel_data(frame.tobytes(), **shape, bits_stored=bits))


def _jpeg_2000(frame: np.ndarray, bits: int) -> bytes:
    return encode_array(frame, photometric_interpretation=2, bits_stored=bits)


def write_dicom(ds: Dataset, path: str | Path) -> None:
    """Write a file in the format of PS3.10: preamble, file meta information, and the dataset in its transfer syntax."""
    if _PYDICOM_3:
        ds.save_as(path, enforce_file_format=True)
        return
    syntax = ds.file_meta.TransferSyntaxUID
    ds.is_little_endian, ds.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    ds.save_as(path, write_like_original=False)
