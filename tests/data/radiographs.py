"""Small radiographs of known content, written as tests need them."""

import importlib.util
import io
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from cleft_bundle.data import RadiographReader
from cleft_bundle.data.dicom.writing import compress, write_dicom

ROWS, COLUMNS = 48, 32
PHI = {
    "PatientName": "CANARY^NAME",
    "PatientID": "CANARY-ID",
    "PatientBirthDate": "19700101",
    "AccessionNumber": "CANARYACC",
    "ReferringPhysicianName": "CANARY^DOCTOR",
    "InstitutionName": "CANARY HOSPITAL",
    "StudyDescription": "CANARY STUDY",
    "StudyInstanceUID": "1.2.3.4.5.6.7.8.9",
}


def scene():
    """A picture without any symmetry that reaches both ends of 12 bits, [48, 32]."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    image = 20.0 * rows + 70.0 * columns + np.random.default_rng(0).integers(0, 200, (ROWS, COLUMNS))
    image = np.rint((image - image.min()) / np.ptp(image) * 4095)
    return image.astype(np.uint16)


EXPECTED = scene() / 4095


def make_dicom(path, pixels=None, syntax=ExplicitVRLittleEndian, **elements):
    """Write a 12-bit DX file; an element given as None is left out."""
    pixels = scene() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    native = syntax.is_deflated or not syntax.is_compressed
    meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    ds = pydicom.Dataset()
    ds.file_meta = meta
    defaults = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "DX",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    for name, value in (defaults | elements).items():
        if value is not None:
            setattr(ds, name, value)
    if "PixelData" not in elements:
        ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    if not native:
        compress(ds, syntax)
    write_dicom(ds, path)
    return str(path)


def load(path, **options):
    reader = RadiographReader(**options)
    return reader.get_data(reader.read(str(path)))


def installed(package):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"needs the package {package}, which is not installed")
    return Path(spec.submodule_search_locations[0])


def first_frame(ds):
    """The first compressed frame of a file, with pydicom 3 and 2."""
    frames = getattr(pydicom.encaps, "generate_frames", None)
    if frames is None:
        return next(pydicom.encaps.generate_pixel_data_frame(ds.PixelData, 1))
    return next(frames(ds.PixelData, number_of_frames=1))


def save_nifti(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([-0.2, -0.1, 1, 1]) if affine is None else affine), path)


def make_jpeg_dicom(path, syntax=JPEGBaseline8Bit, **elements):
    content = io.BytesIO()
    Image.fromarray((scene() >> 4).astype(np.uint8)).save(content, "JPEG", quality=95)
    ds = pydicom.dcmread(make_dicom(path, BitsAllocated=8, BitsStored=8, HighBit=7, **elements))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([content.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path)
    return str(path)


def png(width, height):
    """A PNG whose header promises width x height pixels and which holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def picture_bytes(format_, frames=1):
    content = io.BytesIO()
    images = [Image.fromarray((scene() >> 4).astype(np.uint8))] * frames
    images[0].save(content, format_, **({"save_all": True, "append_images": images[1:]} if frames > 1 else {}))
    return content.getvalue()
