"""No value of a header leaves the reader: by metadata, message, warning, log record or chained exception."""

import traceback
import warnings

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from cleft_bundle.data import RadiographReader
from cleft_bundle.data.dicom.header import ELEMENTS, PERSON
from cleft_bundle.errors import RadiographError
from tests.data import raw_dicom
from tests.data.radiographs import make_dicom, save_nifti, scene

CANARY = "CANARY7731"
# Elements that this package does not read, and that a library might look at on its way
OTHERS = (
    *("SpecificCharacterSet", "ImageType", "PatientName", "PatientBirthDate", "AccessionNumber", "InstitutionName"),
    *("StudyDate", "SeriesDate", "ContentTime", "ReferringPhysicianName", "StudyDescription", "DeviceSerialNumber"),
    *("ImageComments", "TransferSyntaxUID", "SOPInstanceUID", "LossyImageCompression", "PixelAspectRatio"),
)
GREY = [(tag, vr, value) for tag, vr, value in raw_dicom.grey(48, 32, scene().tobytes())]


def elements():
    names = [name for name in (*ELEMENTS, *PERSON, *OTHERS) if tag_for_keyword(name)]
    return [(name, tag_for_keyword(name), dictionary_VR(tag_for_keyword(name)).partition(" ")[0]) for name in names]


def everything_said(path, caplog, **options):
    """All that comes out of reading a file, in one text."""
    reader = RadiographReader(**options)
    said, errors = [], []
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("DEBUG"):
        warnings.simplefilter("always")
        try:
            said.append(repr(reader.get_data(reader.read(path))[1]))
        except RadiographError as error:
            errors.append(error)
    assert not any(error.__cause__ or error.__context__ for error in errors)
    said += [f"{error!r} {''.join(traceback.format_exception(error))}" for error in errors]
    said += [str(w.message) for w in caught]
    said += [record.getMessage() for record in caplog.records]
    caplog.clear()
    return "\n".join(said)


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "implicit"])
@pytest.mark.parametrize(("name", "tag", "vr"), elements())
def test_no_element_is_quoted(tmp_path, caplog, name, tag, vr, explicit):
    for value in (CANARY, f"{CANARY}\\{CANARY}", f"1\\{CANARY}", f"{CANARY}^Jo\xe9 \xff"):
        for kind in {vr, "LO", "UN"} if explicit else {vr}:
            content = value.encode("latin-1")
            if kind in ("US", "SS", "UL", "OW"):
                content += b"X" * (-len(content) % 4)
            changed = [*GREY, (tag, kind, content)]
            path = raw_dicom.write(tmp_path / "x.dcm", changed, explicit)
            assert CANARY not in everything_said(path, caplog, for_processing="log")


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence", "ViewCodeSequence"])
def test_no_element_of_an_item_is_quoted(tmp_path, caplog, name):
    tag = tag_for_keyword(name)
    for inner, vr in (
        (0x00283002, "US"),
        (0x00283006, "OW"),
        (0x00283003, "LO"),
        (0x00080100, "SH"),
        (0x00283002, "DS"),
    ):
        value = (CANARY + "XX").encode()
        changed = [*GREY, raw_dicom.sequence(True, tag, (inner, vr, value))]
        path = raw_dicom.write(tmp_path / "x.dcm", changed)
        assert CANARY not in everything_said(path, caplog)


@pytest.mark.parametrize("frames", [f"1\\{CANARY}", CANARY, f"{CANARY}.5", "1e999", "nan"])
def test_a_bad_number_of_frames_is_not_quoted(tmp_path, caplog, frames):
    path = raw_dicom.write(tmp_path / "x.dcm", [*GREY, (0x00280008, "IS", frames)])
    assert CANARY not in everything_said(path, caplog)


def test_no_value_of_a_picture_or_a_nifti_file_is_quoted(tmp_path, caplog):
    save_nifti(tmp_path / "x.nii", scene().T)
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[148 : 148 + len(CANARY)] = CANARY.encode()  # descrip
    data[344:348] = b"CANA"  # magic
    (tmp_path / "x.nii").write_bytes(data)
    said = everything_said(str(tmp_path / "x.nii"), caplog)
    assert CANARY not in said
    assert "cannot be read" in said


def test_an_error_holds_no_data_set(tmp_path):
    path = make_dicom(tmp_path / "x.dcm", PatientID=CANARY, WindowCenter=1, WindowWidth=[2, 3])
    reader = RadiographReader()
    with pytest.raises(RadiographError) as error:
        reader.get_data(reader.read(path))
    frames = [frame for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    held = [value for frame in frames for value in frame.f_locals.values()]
    assert not any(isinstance(value, pydicom.Dataset) for value in held)
