"""The kind of an object by its SOP Class (PS3.4 B.5), wherever an element that should say so is missing."""

from __future__ import annotations

from typing import Any

from pydicom import uid

from cleft_bundle.data.dicom.elements import tag

_IMAGES = "1.2.840.10008.5.1.4.1.1."
_MODALITIES = {
    **{"1": "CR", "1.1": "DX", "1.1.1": "DX", "1.2": "MG", "1.2.1": "MG", "1.3": "IO", "1.3.1": "IO"},
    **{"13.1.3": "MG", "13.1.4": "MG", "13.1.5": "MG", "2": "CT", "2.1": "CT", "4": "MR", "4.1": "MR"},
    **{"6.1": "US", "3.1": "US", "12.1": "XA", "12.1.1": "XA", "12.2": "RF", "12.2.1": "RF", "20": "NM", "128": "PT"},
    **{"481.1": "RTIMAGE", "481.2": "RTDOSE"},
}
# Defined terms of Modality; a code of 16 characters could hold anything else, such as a name
_DEFINED = frozenset(
    {
        *("AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CF", "CFM", "CR", "CS", "CT", "CTPROTOCOL", "DD", "DF"),
        *("DG", "DM", "DOC", "DS", "DX", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM", "HC"),
        *("HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LP", "LS", "M3D", "MA", "MG", "MR", "MS", "NM"),
        *("OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR"),
        *("PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD"),
        *("RTSEGANN", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG"),
        *("US", "VA", "VF", "XA", "XAPROTOCOL", "XC"),
    }
)
_IN_META = "MediaStorageSOPClassUID"
_FLOATS = ("FloatPixelData", "DoubleFloatPixelData")


def sop_class(ds: Any) -> str:
    """The SOP Class UID of the data set, else that of its file meta information, "" where neither is known."""
    meta = getattr(ds, "file_meta", None) or {}
    found = [str(place.get(name) or "").strip(" \0") for place, name in ((ds, "SOPClassUID"), (meta, _IN_META))]
    return next((text for text in found if uid.UID(text).keyword), "")


def modality_of(ds: Any) -> str:
    """Modality (PS3.3 C.7.3.1.1.1) that goes with the SOP Class, or ""."""
    found = sop_class(ds)
    return _MODALITIES.get(found.removeprefix(_IMAGES), "") if found.startswith(_IMAGES) else ""


def intent_of(ds: Any) -> str:
    """Presentation Intent Type that goes with the SOP Class, or ""; the standard's names of them end with it."""
    name = uid.UID(sop_class(ds)).keyword
    endings = {"ForProcessing": "FOR PROCESSING", "ForPresentation": "FOR PRESENTATION"}
    return next((intent for ending, intent in endings.items() if name.endswith(ending)), "")


def complete(ds: Any) -> None:
    """Give a data set the modality and the presentation intent of its SOP Class where it has no valid one of its own.

    An object whose SOP Class is for processing is for processing, whatever else it says.
    """
    if ds.get("Modality") not in _DEFINED:
        ds.Modality = modality_of(ds)
    intent = intent_of(ds)
    if intent == "FOR PROCESSING" or (intent and not ds.get("PresentationIntentType")):
        ds.PresentationIntentType = intent


def why_no_image(ds: Any) -> str:
    """Say of an object without integer pixels what it is instead, "" of one that has them."""
    for name in _FLOATS:
        if name in ds:
            return f"{tag(name)} holds the pixels: floating-point pixels are not read"
    if "PixelData" in ds or ds.get("Rows"):
        return ""
    found = uid.UID(sop_class(ds))
    if found == uid.MediaStorageDirectoryStorage:
        return "is a DICOMDIR, a directory of images: name the images, or the folder that they are in"
    if not found or "ImageStorage" in found.keyword:
        return f"{tag('PixelData')} and {tag('Rows')} are missing: a header without an image"
    return f"{tag('SOPClassUID')} is {found.name}, which holds no image"
