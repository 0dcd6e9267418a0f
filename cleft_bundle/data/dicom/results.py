"""Results as DICOM objects of the patient: structured reports of scores, secondary captures of pictures.

These are the only outputs that hold who was imaged, because they belong into that patient's record: whoever stores or
sends them treats them as the images themselves. No message quotes what they hold.

highdicom writes what the result is. Who was imaged is copied beside it, as the image has it: real headers hold names
and codes that highdicom refuses, or shows in its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import validate_value

from cleft_bundle.data.dicom.finding_codes import PRIVATE_SCHEME, finding_code
from cleft_bundle.data.dicom.writing import write_dicom
from cleft_bundle.data.images.formats import sniff
from cleft_bundle.data.quiet import quiet
from cleft_bundle.errors import RadiographError
from cleft_bundle.extras import require
from cleft_bundle.files import replacing

_MAKER = "cleft_bundle"
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Of the patient and the study (PS3.3 C.7.1.1, C.7.2.1): those that must be there, if empty, and those that may
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved")
_OF_THE_IMAGE = ("Modality", "PatientOrientation", "ImageLaterality", "Laterality", "BurnedInAnnotation")
# Series of results stand behind those of a study's images
_REPORT_SERIES, _PICTURE_SERIES, _IMAGE_SERIES = 9901, 9902, 9903
_MAMMOGRAPHY = ("71651007", "SCT", "Mammography")
#: Codes by which a report states that its image is unlike those that the model was validated on.
LIMITATION = ("LIMITATION", PRIVATE_SCHEME, "Limitation of the scores")
UNUSUAL = ("UNUSUAL", PRIVATE_SCHEME, "Image is unlike those that the model was validated on")
_RADIOGRAPHY = ("363680008", "SCT", "Radiographic imaging procedure")


@dataclass(frozen=True)
class ResultSource:
    """Maker of a result.

    Args:
        name: of the algorithm.
        version: of the software.
        sha256: of the file of weights.
    """

    name: str
    version: str
    sha256: str


def read_source(path: str) -> Dataset:
    """Read of an image what an object that refers to it needs.

    Args:
        path: a file that the radiograph reader has read.

    Returns:
        a data set without pixels.

    Raises:
        RadiographError: where it is no DICOM file, or lacks one of the UIDs by which it is referred to.
    """
    if sniff(path) != "dicom":
        raise RadiographError("is no DICOM file")
    wanted = [*_UIDS, *_REQUIRED, *_OPTIONAL, *_OF_THE_IMAGE]
    with quiet(), pydicom.config.disable_value_validation():
        source = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=[*wanted])
        source.decode()
        missing = [name for name in _UIDS if not source.get(name)]
    if missing:
        raise RadiographError(f"lacks {missing[0]}")
    return source


def structured_report(
    source: Dataset, scores: Mapping[str, float], model: ResultSource, unusual: bool = False
) -> Dataset:
    """Write scores as a Comprehensive SR, a measurement report (PS3.16 TID 1500).

    Each class is a group of its own (TID 1501): the finding, coded by
    :func:`cleft_bundle.data.dicom.finding_codes.finding_code`; the image; the algorithm with its name, version and the
    fingerprint of its weights (TID 4019); and Certainty of Finding (111012, DCM) in per cent. The report is
    preliminary and not verified: nobody has looked at it.

    Args:
        source: of :func:`read_source`.
        scores: from each class to its probability, 0..1.
        model: what made them.
        unusual: the image is unlike those that the model was validated on: each group states it as a limitation, a
            qualitative evaluation coded :data:`LIMITATION` and :data:`UNUSUAL`.

    Returns:
        the report, ready to be saved.

    Raises:
        BundleError: where highdicom is not installed.
    """
    hd = require("highdicom", "sr")
    scheme = require("highdicom.coding_schemes", "sr").CodingSchemeIdentificationItem
    maker = hd.sr.AlgorithmIdentification(
        name=model.name, version=model.version, parameters=[f"model SHA-256: {model.sha256}"], manufacturer=_MAKER
    )
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[_MAKER, model.sha256]),
        name=model.name,
        manufacturer_name=_MAKER,
        model_name=model.name,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    evidence = _stand_in(source)
    with quiet(), pydicom.config.disable_value_validation():
        image = hd.sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
        groups = [
            hd.sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(
                    uid=generate_uid(entropy_srcs=[source.SOPInstanceUID, model.sha256, name]), identifier=name
                ),
                finding_type=hd.sr.CodedConcept(*finding_code(name)),
                algorithm_id=maker,
                measurements=[
                    hd.sr.Measurement(
                        name=codes.DCM.CertaintyOfFinding, value=float(f"{100 * score:.9g}"), unit=codes.UCUM.Percent
                    )
                ],
                source_images=[image],
                qualitative_evaluations=[
                    hd.sr.QualitativeEvaluation(hd.sr.CodedConcept(*LIMITATION), hd.sr.CodedConcept(*UNUSUAL))
                ]
                if unusual
                else None,
            )
            for name, score in scores.items()
        ]
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=hd.sr.CodedConcept(*(_MAMMOGRAPHY if source.get("Modality") == "MG" else _RADIOGRAPHY)),
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        report = hd.sr.ComprehensiveSR(
            evidence=[evidence],
            content=content,
            is_complete=True,
            is_final=False,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=f"{_MAKER}: class scores",
            coding_schemes=[scheme(PRIVATE_SCHEME, name="class names of cleft_bundle")],
            **_identity(source, model, _REPORT_SERIES),
        )
        _copy(source, report, *_REQUIRED, *_OPTIONAL)
    return report


def secondary_capture(source: Dataset, picture: np.ndarray, description: str, model: ResultSource) -> Dataset:
    """Store a picture that was derived from an image as a Secondary Capture.

    Args:
        source: of :func:`read_source`.
        picture: uint8 [H, W, 3], of the image's orientation.
        description: what it shows.
        model: what made it.

    Returns:
        the image, ready to be saved.

    Raises:
        BundleError: where highdicom is not installed.
    """
    hd = require("highdicom", "sr")
    with quiet(), pydicom.config.disable_value_validation():
        capture = hd.sc.SCImage.from_ref_dataset(
            _stand_in(source),
            picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # highdicom wants one; the image's own follows
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=f"{_MAKER}: {description}"[:64],
            **_identity(source, model, _PICTURE_SERIES),
        )
        capture.ConversionType = "WSD"  # drawn on a workstation
        capture.DerivationDescription = f"{description}; model SHA-256: {model.sha256}"
        capture.PatientOrientation = None
        _copy(source, capture, "PatientOrientation", "BurnedInAnnotation")
        side = "ImageLaterality" if source.get("ImageLaterality") else "Laterality"
        setattr(capture, side, None)  # one of the two is there, empty where no side is known
        _copy(source, capture, side)
        capture.SourceImageSequence = [_source_image(source)]
        _copy(source, capture, *_REQUIRED, *_OPTIONAL)
    return capture


def derived_image(
    pixels: np.ndarray,
    levels: int,
    spacing: tuple[float, float] | None = None,
    texts: Mapping[str, str] | None = None,
    *,
    source: Dataset | None = None,
    patient: str = "",
    study: str = "",
) -> Dataset:
    """Store a grey image as a Secondary Capture, to be shown over the whole range of its values.

    Its UIDs are new. Patient and study are those of `source`, else the pseudonyms, else empty.

    Args:
        pixels: uint16 [H, W], 0..levels; bright = dense.
        levels: the value that is shown white.
        spacing: mm between rows and between columns, where known.
        texts: `modality`, `view`, `laterality` and `patient_orientation` as in the reader's metadata, where known.
        source: of :func:`read_source`: the image that it was made of, into whose study it goes.
        patient: pseudonym of the patient.
        study: pseudonym of the study, which all its images get one study of.

    Returns:
        the image, ready to be saved.

    Raises:
        BundleError: where highdicom is not installed.

    Source: DICOM PS3.3 A.8.1 (Secondary Capture Image IOD); C.11.2.1.2.1 for the window.
    """
    hd = require("highdicom", "sr")
    texts = texts or {}
    study_uid = generate_uid(entropy_srcs=[_MAKER, "study", study] if study else None)
    with quiet(), pydicom.config.disable_value_validation():
        capture = hd.sc.SCImage(
            pixels,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=16,
            coordinate_system="PATIENT",
            study_instance_uid=source.StudyInstanceUID if source else study_uid,
            series_instance_uid=generate_uid(),
            series_number=_IMAGE_SERIES,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=_MAKER,
            patient_id=patient or None,
            pixel_spacing=spacing,
            patient_orientation=("L", "F"),  # highdicom wants one; what is known follows
            transfer_syntax_uid=ExplicitVRLittleEndian,
            specific_character_set="ISO_IR 192",
        )
        capture.ConversionType = "WSD"
        capture.Modality = texts.get("modality") or "OT"
        capture.BitsStored = max(8, levels.bit_length())
        capture.HighBit = capture.BitsStored - 1
        capture.WindowCenter, capture.WindowWidth = (levels + 1) / 2, levels + 1
        capture.PatientOrientation = (
            texts["patient_orientation"].split("\\") if "patient_orientation" in texts else None
        )
        if "view" in texts:
            capture.ViewPosition = texts["view"]
        setattr(capture, "ImageLaterality" if "laterality" in texts else "Laterality", texts.get("laterality"))
        if source:
            capture.SourceImageSequence = [_source_image(source)]
            _copy(source, capture, *_REQUIRED, *_OPTIONAL, "BurnedInAnnotation")
        else:
            capture.PatientIdentityRemoved = "YES"
            capture.DeidentificationMethod = "written without a header; what is burnt in stays"
    return capture


def _source_image(source: Dataset) -> Dataset:
    """The reference of a derived image to the one that it was made of (PS3.3 C.7.6.1.1.4)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [
        require("highdicom", "sr").sr.CodedConcept("121322", "DCM", "Source image for image processing operation")
    ]
    return reference


def save_result(result: Dataset, path: Path) -> None:
    """Write a report or a capture, under a temporary name first."""
    with replacing(path) as temporary, quiet(), pydicom.config.disable_value_validation():
        write_dicom(result, temporary)


def _identity(source: Dataset, model: ResultSource, series: int) -> dict[str, Any]:
    """What any of our objects is called, in a series of its own of the image's study."""
    return {
        "series_instance_uid": generate_uid(entropy_srcs=[source.SOPInstanceUID, model.sha256, str(series)]),
        "series_number": series,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": _MAKER,
        "manufacturer_model_name": model.name,
        "software_versions": model.version,
        "device_serial_number": model.sha256,
        "specific_character_set": "ISO_IR 192",
    }


def _stand_in(source: Dataset) -> Dataset:
    """The image without who is on it."""
    bare = Dataset()
    for name in _UIDS:
        setattr(bare, name, source.get(name))
    for name in _REQUIRED:
        setattr(bare, name, None)
    return bare


def _copy(source: Dataset, result: Dataset, *names: str) -> None:
    """Copy elements as they are, but for dates, times and codes that are none: those stay empty."""
    for name in names:
        if name in source:
            element = source[name]
            try:
                for value in element.value if element.VM > 1 else [element.value]:
                    if element.VR in ("CS", "DA", "TM"):
                        validate_value(element.VR, value, pydicom.config.RAISE)
            except ValueError:
                continue
            result[name] = element
