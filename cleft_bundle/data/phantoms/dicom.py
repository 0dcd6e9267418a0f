"""Phantom pictures as DICOM: Digital X-Ray and Digital Mammography X-Ray Image Storage - For Presentation.

Bit depth, polarity, transfer syntax and VOI stage are drawn at random, because a reader must cope with all of them.
The modules are those of PS3.3 A.26 (DX) and A.27 (MG); rescale slope and intercept are 1 and 0, as C.8.11.3 demands.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from cleft_bundle.data.dicom.writing import compress, write_dicom
from cleft_bundle.data.phantoms.shapes import Array

SYNTAXES = (
    (ExplicitVRLittleEndian, 0.35),
    (RLELossless, 0.25),
    (JPEGLSLossless, 0.2),
    (JPEG2000Lossless, 0.1),
    (DeflatedExplicitVRLittleEndian, 0.1),
)
BITS = (12, 13, 14, 15, 16)

# Code value, scheme and meaning, PS3.16 CID 4031 (regions) and CID 4014 (mammography views).
REGION = {"chest": ("51185008", "SCT", "Chest"), "breast": ("76752008", "SCT", "Breast")}
VIEW = {"CC": ("399162004", "SCT", "cranio-caudal"), "MLO": ("399368009", "SCT", "medio-lateral oblique")}


@dataclass(frozen=True)
class Header:
    """Attributes that a file states about its phantom.

    Args:
        kind: "chest" or "breast".
        patient: number of the phantom patient, from 1.
        study: number of the patient's study, from 1.
        instance: number of the image in its study, from 1.
        seed: of the set; part of the UIDs.
        sex: "M", "F" or "O".
        age: in years.
        date: of the study, YYYYMMDD.
        view: PA or AP (chest), CC or MLO (breast).
        laterality: L or R; None for the chest, which is unpaired.
    """

    kind: str
    patient: int
    study: int
    instance: int
    seed: int
    sex: str
    age: int
    date: str
    view: str
    laterality: str | None = None

    def uid(self, *level: object) -> UID:
        """UID that depends on nothing but the phantom and the level."""
        return generate_uid(entropy_srcs=["cleft_bundle phantom", self.kind, str(self.seed), *map(str, level)])


def write(path: Path, grey: Array, header: Header, rng: np.random.Generator) -> None:
    """Store a picture with a random exposure, depth, polarity, VOI stage and transfer syntax.

    Args:
        path: of the file; its folder is created.
        grey: [H, W], dense is bright, roughly in [0, 1].
        header: who and what the phantom is.
        rng: draws how it is stored.
    """
    bits = int(rng.choice(BITS))
    inverted = bool(rng.random() < 0.4)
    top = 2**bits - 1
    offset, gain = rng.uniform(0.02, 0.25), rng.uniform(0.4, 0.6)
    dense = np.clip(offset + gain * grey, 0, 1)
    stored = np.round((1 - dense if inverted else dense) * top).astype(np.uint16)
    window = (1 - offset - gain / 2 if inverted else offset + gain / 2) * top, gain * top * rng.uniform(1.0, 1.25)

    data = _identity(header)
    _pixel_header(data, bits, inverted)
    _voi(data, window, rng)
    data.Rows, data.Columns = stored.shape
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"

    syntax = SYNTAXES[rng.choice(len(SYNTAXES), p=[share for _, share in SYNTAXES])][0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax if not syntax.is_encapsulated else ExplicitVRLittleEndian
    data.file_meta = meta
    if syntax.is_encapsulated:
        compress(data, syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(data, path)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _identity(header: Header) -> Dataset:
    """Patient, study, series, equipment, anatomy and positioning modules."""
    breast = header.kind == "breast"
    study = header.uid(header.patient, header.study)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["DERIVED", "PRIMARY", ""]
    data.SOPClassUID = (
        DigitalMammographyXRayImageStorageForPresentation if breast else DigitalXRayImageStorageForPresentation
    )
    data.SOPInstanceUID = header.uid(header.patient, header.study, "image", header.instance)
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = header.date
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "120000"
    data.AccessionNumber = f"PH{header.patient:06d}{header.study:02d}"
    data.Modality = "MG" if breast else "DX"
    data.PresentationIntentType = "FOR PRESENTATION"
    data.Manufacturer = data.ManufacturerModelName = "cleft_bundle phantom"
    data.ReferringPhysicianName = ""
    data.StudyDescription = "PHANTOM mammogram, no patient" if breast else "PHANTOM chest, no patient"
    data.SeriesDescription = f"PHANTOM {header.laterality or ''} {header.view}".replace("  ", " ")
    data.PatientName = f"PHANTOM^{header.kind.upper()}"
    data.PatientID = f"PHANTOM-{header.patient:05d}"
    data.PatientBirthDate = ""
    data.PatientSex = header.sex
    data.PatientAge = f"{header.age:03d}Y"
    data.BodyPartExamined = header.kind.upper()
    data.StudyInstanceUID = study
    data.SeriesInstanceUID = header.uid(header.patient, header.study, "series", header.instance)
    data.StudyID = str(header.study)
    data.SeriesNumber = header.instance
    data.InstanceNumber = 1
    data.AcquisitionContextSequence = []
    data.AnatomicRegionSequence = [_code(*REGION[header.kind])]
    data.ImageLaterality = header.laterality or "U"
    data.ViewPosition = header.view
    data.DetectorType = "DIRECT"
    data.ImagerPixelSpacing = [0.6, 0.6] if breast else [1.4, 1.4]
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    if breast:
        view = _code(*VIEW[header.view])
        view.ViewModifierCodeSequence = []
        data.ViewCodeSequence = [view]
        data.PositionerType = "MAMMOGRAPHIC"
        data.OrganExposed = "BREAST"
        data.BreastImplantPresent = "NO"
        forward = "A" if header.laterality == "L" else "P"
        away = "R" if header.laterality == "L" else "L"
        data.PatientOrientation = [forward, away if header.view == "CC" else f"F{away}"]
    else:
        data.PatientOrientation = ["L", "F"]
    return data


def _pixel_header(data: Dataset, bits: int, inverted: bool) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
    data.PixelIntensityRelationship = "LOG"
    data.PixelIntensityRelationshipSign = 1 if inverted else -1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"


def _voi(data: Dataset, window: tuple[float, float], rng: np.random.Generator) -> None:
    """One window, two windows, a sigmoid one, or (12 bits only: the table stays small) a LUT instead of a window."""
    centre, width = (round(value, 1) for value in window)
    kind = rng.choice(["linear", "two", "sigmoid", "lut"], p=[0.55, 0.15, 0.15, 0.15])
    if kind == "lut" and data.BitsStored == 12:
        values = np.arange(4096, dtype=np.float64)
        curve = 1 / (1 + np.exp(-4 * (values - centre) / width))
        table = Dataset()
        table.LUTDescriptor = [4096, 0, 12]
        table["LUTDescriptor"].VR = "US"
        table.LUTExplanation = "PHANTOM contrast"
        table.LUTData = np.round(curve * 4095).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        data.VOILUTSequence = [table]
    elif kind == "two":
        data.WindowCenter, data.WindowWidth = [centre, centre], [width, round(1.3 * width, 1)]
        data.WindowCenterWidthExplanation = ["NORMAL", "SOFTER"]
    else:
        data.WindowCenter, data.WindowWidth = centre, width
        data.VOILUTFunction = "SIGMOID" if kind == "sigmoid" else "LINEAR"
