"""The formats of image files: told by their first bytes, not by their names."""

from __future__ import annotations

from pathlib import Path

from cleft_bundle.errors import RadiographError

# Their first bytes, and Pillow's names; TIFF has either byte order
_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
#: Suffixes of names of files in these formats, in lower case.
SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz")


def sniff(path: str) -> str | None:
    """Tell a file's format by its first bytes (NIfTI by its suffix): "dicom", "picture", "nifti" or None."""
    if path.lower().endswith((".nii", ".nii.gz")):
        return "nifti"
    with Path(path).open("rb") as f:
        start = f.read(132)
    if start[128:] == b"DICM":  # before the others: the 128 bytes ahead of it may hold the start of a TIFF
        return "dicom"
    if start.startswith(tuple(_PICTURES)):
        return "picture"
    # DICOM without its preamble starts with an element of group 0002 or 0008 (PS3.10 section 7.1), and its first
    # element number is small; text does not. In big endian, which always names its VR, the bytes are swapped.
    bare = len(start) >= 8 and start[:2] in (b"\x02\0", b"\x08\0") and start[3] == 0
    swapped = start[:3] == b"\0\x08\0" and start[4:6].isalpha() and start[4:6].isupper()
    return "dicom" if bare or swapped else None


def picture_format(start: bytes) -> str:
    """Pillow's name of the format of a picture, by its first bytes."""
    return next(name for first, name in _PICTURES.items() if start.startswith(first))


def known_format(path: str) -> str:
    """The format of a file: "dicom", "picture" or "nifti".

    Raises:
        RadiographError: there is no such file, or it is empty, or of no known format.
    """
    if not Path(path).exists():
        raise RadiographError("does not exist")
    if not Path(path).is_file():
        raise RadiographError("is not a file")
    if Path(path).stat().st_size == 0:
        raise RadiographError("is empty")
    found = sniff(path)
    if not found:
        raise RadiographError("is not an image that is known here: DICOM, PNG, JPEG, TIFF or NIfTI is expected")
    return found
