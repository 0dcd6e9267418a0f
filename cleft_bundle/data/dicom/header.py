"""Reading DICOM files: only the elements that a radiograph needs, and only what is safe of them goes into metadata.

No other element is ever parsed, so no name, date of birth or accession number can reach a tensor's metadata, a
message or a log. PatientID, StudyInstanceUID and SOPInstanceUID are read for their pseudonyms alone.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any, BinaryIO

import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cleft_bundle.data.dicom.elements import numbers, tag
from cleft_bundle.data.dicom.layout import OVERLAY_BITS
from cleft_bundle.data.dicom.makers import maker
from cleft_bundle.data.dicom.sop_classes import complete
from cleft_bundle.data.dicom.views import orientation_of, side_of, traits_of, view_of
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.data.quiet import quiet
from cleft_bundle.data.tables import OLDEST, years
from cleft_bundle.errors import RadiographError

ELEMENTS = (
    # what the image is
    *("SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer", "PresentationIntentType", "PatientID"),
    "StudyInstanceUID",
    *("ViewPosition", "ViewCodeSequence", "SeriesDescription", "ImageLaterality", "FrameLaterality", "Laterality"),
    *("PatientOrientation", "FieldOfViewHorizontalFlip", "AnatomicRegionSequence", "AnatomicRegionModifierSequence"),
    *("ImageType", "BreastImplantPresent", "PartialView", "ViewModifierCodeSequence", "SpecimenDescriptionSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor"),
    # how its pixels are stored
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    "SegmentedRedPaletteColorLookupTableData",
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable"),
    "ExtendedOffsetTableLengths",
    # how they are to be shown
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "PixelIntensityRelationship"),
    *("PixelIntensityRelationshipSign", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PresentationLUTShape",
    # the same of one frame among several
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
# Who was imaged: read where asked for, and never part of an image's metadata
PERSON = ("PatientSex", "PatientAge")
_OLDEST = 90  # years, and what every older patient is given: higher ages identify (45 CFR 164.514(b)(2)(i)(C))
# Functional groups (PS3.3 C.7.6.16.2) that say of a frame what a plain image says of itself
_GROUPS = (
    *("PixelMeasuresSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence", "FrameAnatomySequence"),
)
_MAX_BYTES = 800_000_000  # what the reader allows a deflated file unless told otherwise
_WITHOUT_PIXELS = [name for name in ELEMENTS if name != "PixelData"]
_CODES = (
    *("Modality", "PresentationIntentType", "PhotometricInterpretation", "PresentationLUTShape"),
    *("PixelIntensityRelationship", "VOILUTFunction"),
)
_INTENTS = ("FOR PRESENTATION", "FOR PROCESSING")


def read_header(path: str, max_bytes: int = _MAX_BYTES, *, pixels: bool = True) -> Any:
    """Read the elements of a DICOM file that this package needs, with or without a preamble.

    Args:
        path: the file.
        max_bytes: what a deflated file may unfold to at most (PS3.5 section A.5).
        pixels: read the pixels and how to show them; without them, the file is read up to its pixels only, and
            PatientSex and PatientAge are read too.

    Returns:
        a pydicom data set, whose file_meta names a transfer syntax, whose code strings are clean, and whose Modality
        and PresentationIntentType are what the SOP Class says where they are missing.

    Raises:
        RadiographError: if the file ends within its pixel data, or unfolds to more than `max_bytes`.
    """
    with quiet() as caught, open(path, "rb") as file:
        wanted: list[Any] = [*ELEMENTS, *OVERLAY_BITS] if pixels else [*_WITHOUT_PIXELS, *PERSON]
        ds = _read_deflated(file, max_bytes, wanted) or pydicom.dcmread(
            file, force=True, specific_tags=wanted, stop_before_pixels=not pixels
        )
    if pixels and "PixelData" not in ds and any("End of file" in text for text in caught):
        raise RadiographError(f"{tag('PixelData')} is truncated: the file ends within it")
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = getattr(ds, "original_encoding", (ds.is_implicit_VR, ds.is_little_endian))
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    with quiet():
        for name in _CODES:
            if name in ds:  # without the NULs and spaces that writers pad them with
                setattr(ds, name, code(ds, name))
    complete(ds)
    return ds


def _read_deflated(file: BinaryIO, max_bytes: int, wanted: list[Any]) -> Any | None:
    """Read a deflated file, which pydicom would unfold without a limit; None, and back to its start, for others."""
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda element, _vr, _length: element.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return None
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflate.decompress(file.read(), max_bytes)
    if inflate.unconsumed_tail:
        raise RadiographError(f"{tag('TransferSyntaxUID')} is deflated: unfolds to more than {max_bytes} bytes")
    tags: list[Any] = [pydicom.tag.Tag(name) for name in wanted]
    ds = read_dataset(io.BytesIO(content), False, True, specific_tags=tags)
    ds.file_meta = pydicom.dataset.FileMetaDataset(meta)
    return ds


def choose_frame(ds: Any, frame: int | str | None) -> int:
    """Choose one frame, and give the data set what its functional groups say of that frame (PS3.3 C.7.6.16).

    Args:
        ds: the data set; changed in place.
        frame: its number, from 0; "middle"; or None, which accepts a single frame only.

    Returns:
        the number of the frame.

    Raises:
        RadiographError: if there are several frames and none is asked for, or there is no such frame.
    """
    count = int((numbers(ds, "NumberOfFrames") or [1])[0])
    if count != 1 and (frame is None or count < 1):
        hint = f'; frame=0..{count - 1} or frame="middle" reads one' if count > 1 else ""
        raise RadiographError(f"{tag('NumberOfFrames')} is {count}: one image is expected{hint}")
    index = count // 2 if frame == "middle" else int(frame or 0)
    if index >= count:
        raise RadiographError(f"{tag('NumberOfFrames')} is {count}; no. {index} (from 0) asked")
    shared, own = ds.get("SharedFunctionalGroupsSequence") or [], ds.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *own[index : index + 1]):
        for name in _GROUPS:
            for item in (groups.get(name) or [])[:1]:
                for element in item:
                    if element.keyword in ELEMENTS:
                        ds.add(element)
    return index


def describe(ds: Any) -> dict[str, Any]:
    r"""Return the metadata of a data set: known codes, the maker and pseudonyms.

    Returns:
        modality, view ("PA", "AP", "LATERAL", "CC", "MLO", ...), laterality ("L", "R", "B"), view_source and
        laterality_source ("tag", "code", "orientation", or "description" for a guess; see
        :mod:`cleft_bundle.data.dicom.views`), traits (what sets the image apart, joined by "|"), patient_orientation
        (the sides of the patient towards which rows and columns run, e.g. "L\F", PS3.3 C.7.6.1.1.1), horizontal_flip
        ("YES", "NO": whether the field of view was flipped before it was stored, PS3.3 C.8.11.7),
        photometric_interpretation, manufacturer (one of `makers`), presentation_intent, patient and study, each a
        string, "" where unknown; spacing, (row, column) distance in mm or None.
    """
    with quiet():
        (view, view_source), (side, side_source) = view_of(ds), side_of(ds)
        intent, flip = code(ds, "PresentationIntentType"), code(ds, "FieldOfViewHorizontalFlip")
        return {
            "modality": code(ds, "Modality"),
            "view": view,
            "view_source": view_source,
            "laterality": side,
            "laterality_source": side_source,
            "traits": "|".join(traits_of(ds)),
            "patient_orientation": orientation_of(ds),
            "horizontal_flip": flip if flip in ("YES", "NO") else "",
            "photometric_interpretation": code(ds, "PhotometricInterpretation"),
            "manufacturer": maker(str(ds.get("Manufacturer") or "")),
            "presentation_intent": intent if intent in _INTENTS else "",
            "patient": hashed(ds, "PatientID"),
            "study": hashed(ds, "StudyInstanceUID"),
            "spacing": _spacing(ds),
        }


def describe_person(ds: Any) -> dict[str, Any]:
    """Facts about the patient that a caption may mention.

    Args:
        ds: what :func:`read_header` read without pixels.

    Returns:
        ``sex`` ("F", "M", or "" where unknown or other) and ``age`` in years, or None where unknown or above 120.
        Everybody of 90 and older is 90.
    """
    with quiet():  # real files hold ages such as "44"
        sex = code(ds, "PatientSex")
        age = years(str(ds.get("PatientAge") or "").strip(" \0"))
    return {
        "sex": sex if sex in ("F", "M") else "",
        "age": None if age is None or age > OLDEST else min(age, float(_OLDEST)),
    }


def hashed(ds: Any, name: str) -> str:
    """Return the pseudonym of an identifier, or "" where it is absent or empty.

    The identifier is taken as it lies in the file: pydicom's validation would quote it in a warning.
    """
    if name not in ds:
        return ""
    value = ds.get_item(name).value
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")).strip(" \0")
    return pseudonym(text) if text.strip() else ""


def instance(ds: Any) -> str:
    """Return the pseudonym of the SOP instance as the data set names it, or else the file; "" where neither does."""
    return hashed(ds, "SOPInstanceUID") or hashed(ds.file_meta, "MediaStorageSOPInstanceUID")


def code(ds: Any, name: str) -> str:
    """Return a code string in upper case, or "" where it is absent or not a code string (PS3.5 section 6.2, CS)."""
    text = str(ds.get(name) or "").strip(" \0").upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{0,16}", text) else ""


def _spacing(ds: Any) -> tuple[float, float] | None:
    """Distance of pixels in the patient, (row, column) in mm, or None.

    PixelSpacing; else ImagerPixelSpacing divided by the magnification factor (PS3.3 10.7.1.3); else the spacing at
    which a film was scanned. Zeros, which anonymisers leave behind, count as absent.
    """
    magnification = (numbers(ds, "EstimatedRadiographicMagnificationFactor") or [1.0])[0]
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(ds, name)
        if len(found) == 2 and min(found) > 0:
            scale = magnification if name == "ImagerPixelSpacing" and magnification > 0 else 1.0
            return found[0] / scale, found[1] / scale
    return None
