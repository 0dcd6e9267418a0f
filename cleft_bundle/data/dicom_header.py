"""Reading DICOM files: only the elements that a radiograph needs, and only what is safe of them goes into metadata.

No other element is ever parsed, so no name, date of birth or accession number can reach a tensor's metadata, a
message or a log. PatientID and StudyInstanceUID are read for their pseudonyms alone.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cleft_bundle.data.dicom_pixels import numbers, tag
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import RadiographError

ELEMENTS = (
    # what the image is
    *("Modality", "Manufacturer", "PresentationIntentType", "PatientID", "StudyInstanceUID"),
    *("ViewPosition", "ViewCodeSequence", "ImageLaterality", "Laterality"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor"),
    # how its pixels are stored
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    # how they are to be shown
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "PixelIntensityRelationship"),
    *("PixelIntensityRelationshipSign", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PresentationLUTShape",
)
_VIEWS = {"LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"} | {
    view: view for view in ("PA", "AP", "CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "SIO", "FB")
}
# Code values of ViewCodeSequence: PS3.16 CID 4014 (mammography) and CID 4010 (DX), SNOMED RT and SNOMED CT
_VIEW_CODES = {
    **{"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"},
    **{"R-10224": "ML", "399260004": "ML", "R-10228": "LM", "399352003": "LM"},
    **{"R-10206": "AP", "399348003": "AP", "R-10214": "PA", "399132005": "PA"},
}
_INTENTS = ("FOR PRESENTATION", "FOR PROCESSING")


def read_header(path: str) -> Any:
    """Read the elements of a DICOM file that this package needs, with or without a preamble.

    Returns:
        a pydicom data set, whose file_meta names a transfer syntax and whose code strings are clean.

    Raises:
        RadiographError: if the file ends within its pixel data.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = pydicom.dcmread(path, force=True, specific_tags=list(ELEMENTS))
    if "PixelData" not in ds and any("End of file" in str(w.message) for w in caught):
        raise RadiographError(f"{tag('PixelData')} is truncated: the file ends within it")
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = getattr(ds, "original_encoding", (ds.is_implicit_VR, ds.is_little_endian))
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for name in ("PhotometricInterpretation", "PresentationLUTShape", "PixelIntensityRelationship", "VOILUTFunction"):
        if name in ds:  # without the NULs and spaces that writers pad them with
            setattr(ds, name, code(ds, name))
    return ds


def describe(ds: Any) -> dict[str, Any]:
    """Return the metadata of a data set: known codes, the maker and pseudonyms.

    Returns:
        modality, view ("PA", "AP", "LATERAL", "CC", "MLO", ...), laterality ("L", "R", "B"),
        photometric_interpretation, manufacturer, presentation_intent, patient and study, each a string, "" where
        unknown; spacing, (row, column) distance in mm or None.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes a value that breaks the rules of its type
        laterality = code(ds, "ImageLaterality") or code(ds, "Laterality")
        intent = code(ds, "PresentationIntentType")
        return {
            "modality": code(ds, "Modality"),
            "view": _view(ds),
            "laterality": laterality if laterality in ("L", "R", "B") else "",
            "photometric_interpretation": code(ds, "PhotometricInterpretation"),
            "manufacturer": " ".join(str(ds.get("Manufacturer") or "").split()),
            "presentation_intent": intent if intent in _INTENTS else "",
            "patient": _hashed(ds, "PatientID"),
            "study": _hashed(ds, "StudyInstanceUID"),
            "spacing": _spacing(ds),
        }


def code(ds: Any, name: str) -> str:
    """Return a code string in upper case, or "" where it is absent or not a code string (PS3.5 section 6.2, CS)."""
    text = str(ds.get(name) or "").strip(" \0").upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{0,16}", text) else ""


def _view(ds: Any) -> str:
    """Projection: ViewPosition, else the first item of ViewCodeSequence; "" where neither is known."""
    view = _VIEWS.get(code(ds, "ViewPosition"), "")
    items = ds.get("ViewCodeSequence") or []
    return view or (_VIEW_CODES.get(str(items[0].get("CodeValue", "")).strip(), "") if items else "")


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


def _hashed(ds: Any, name: str) -> str:
    """Pseudonym of an identifier, or "" where it is absent or empty.

    The identifier is taken as it lies in the file: pydicom's validation would quote it in a warning.
    """
    if name not in ds:
        return ""
    value = ds.get_item(name).value
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")).strip(" \0")
    return pseudonym(text) if text.strip() else ""
