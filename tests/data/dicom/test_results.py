import logging
import shutil
import subprocess
import warnings

import numpy as np
import pydicom
import pytest

from cleft_bundle.data import RadiographReader
from cleft_bundle.data.dicom.results import ResultSource, read_source, save_result, secondary_capture, structured_report
from cleft_bundle.data.phantoms.dicom import Header, write
from cleft_bundle.errors import RadiographError
from tests.data.radiographs import make_dicom

hd = pytest.importorskip("highdicom", reason="needs the extra: pip install 'cleft_bundle[sr]'")

MODEL = ResultSource("CLEFT zero-shot classifier", "1.2.3", "0123456789abcdef" * 4)
SCORES = {"pneumonia": 0.987654321, "pleural thickening": 0.0, "no finding": 1.0}


@pytest.fixture(params=["chest", "breast"])
def image(request, tmp_path):
    """A valid DX or MG file."""
    view, side = ("PA", None) if request.param == "chest" else ("MLO", "L")
    header = Header(request.param, 1, 1, 1, 0, "F", 50, "20200101", view, side)
    write(tmp_path / "image.dcm", np.random.default_rng(0).random((40, 30)), header, np.random.default_rng(0))
    return tmp_path / "image.dcm"


def errors(path):
    """What dciodvfy finds wrong."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy: apt-get install dicom3tools")
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    assert "ComprehensiveSR" in done.stderr or "SCImage" in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def test_a_report_is_valid(image, tmp_path):
    save_result(structured_report(read_source(str(image)), SCORES, MODEL), tmp_path / "new" / "report.dcm")
    assert errors(tmp_path / "new" / "report.dcm") == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.dcm"]


def test_a_report_on_an_unusual_image_is_valid_and_states_the_limitation(image, tmp_path):
    for unusual in (False, True):
        report = structured_report(read_source(str(image)), SCORES, MODEL, unusual=unusual)
        save_result(report, tmp_path / "report.dcm")
        assert errors(tmp_path / "report.dcm") == []
        groups = hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
        found = [group.get_qualitative_evaluations() for group in groups]
        assert [len(one) for one in found] == [int(unusual)] * len(SCORES)
    assert {one[0].value.meaning for one in found} == {"Image is unlike those that the model was validated on"}


def test_a_capture_is_valid(image, tmp_path):
    picture = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    save_result(secondary_capture(read_source(str(image)), picture, "heat map of edema", MODEL), tmp_path / "sc.dcm")
    assert errors(tmp_path / "sc.dcm") == []
    capture, source = pydicom.dcmread(tmp_path / "sc.dcm"), pydicom.dcmread(image)
    np.testing.assert_array_equal(capture.pixel_array, picture)
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert capture.PatientOrientation == source.PatientOrientation
    assert MODEL.sha256 in capture.DerivationDescription
    assert (capture.PatientID, capture.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)


def test_highdicom_reads_back_what_was_written(image, tmp_path):
    save_result(structured_report(read_source(str(image)), SCORES, MODEL), tmp_path / "report.dcm")
    source, report = pydicom.dcmread(image), hd.sr.srread(tmp_path / "report.dcm")
    assert isinstance(report, hd.sr.ComprehensiveSR)
    groups = report.content.get_image_measurement_groups()
    found = {group.tracking_identifier: group for group in groups}
    assert list(found) == list(SCORES)
    assert found["pneumonia"].finding_type == hd.sr.CodedConcept("233604007", "SCT", "Pneumonia")
    assert found["pleural thickening"].finding_type.scheme_designator == "99CLEFT"
    for name, group in found.items():
        (measurement,) = group.get_measurements()
        assert measurement.name == hd.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
        assert measurement.value == pytest.approx(100 * SCORES[name], abs=1e-4)
        assert measurement.unit.value == "%"
        (reference,) = group.source_images
        assert reference.referenced_sop_instance_uid == source.SOPInstanceUID
        assert reference.referenced_sop_class_uid == source.SOPClassUID
    text = str(report)
    assert MODEL.sha256 in text
    assert MODEL.version in text
    assert report.PatientName == source.PatientName
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_names_of_any_alphabet_are_kept(tmp_path):
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}
    for charset, name in (("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")):
        path = make_dicom(tmp_path / "x.dcm", SpecificCharacterSet=charset, PatientName=name, **uids)
        save_result(structured_report(read_source(path), {"épanchement": 0.5}, MODEL), tmp_path / "report.dcm")
        report = pydicom.dcmread(tmp_path / "report.dcm")
        assert report.PatientName == name
        assert report.SpecificCharacterSet == "ISO_IR 192"
        assert "épanchement" in str(report)


def test_a_header_that_breaks_the_rules_is_neither_refused_nor_shown(tmp_path, caplog, capfd):
    broken = {"PatientName": "CANARY", "PatientBirthDate": "00000000", "PatientSex": "unknown", "StudyTime": "noon"}
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "PatientID": "CANARY" * 20}
    with pydicom.config.disable_value_validation():
        path = make_dicom(tmp_path / "x.dcm", **broken, **uids)
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save_result(structured_report(read_source(path), SCORES, MODEL), tmp_path / "report.dcm")
    assert "CANARY" not in caplog.text + "".join(capfd.readouterr()) + "".join(str(one.message) for one in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = pydicom.dcmread(tmp_path / "report.dcm")
        assert report.PatientID == "CANARY" * 20
        assert not report.PatientBirthDate
        assert not report.PatientSex
        assert not report.StudyTime


@pytest.mark.parametrize(("elements", "reason"), [({}, "lacks StudyInstanceUID"), (None, "is no DICOM file")])
def test_what_cannot_be_referred_to_is_an_error(tmp_path, elements, reason):
    path = tmp_path / "x"
    path.write_bytes(b"\x89PNG\r\n\x1a\n") if elements is None else make_dicom(path, **elements)
    with pytest.raises(RadiographError, match=f"^{reason}$"):
        read_source(str(path))


@pytest.mark.shared_data
def test_reports_on_real_images_are_valid(shared_data, tmp_path):
    for path in sorted((shared_data / "data" / "dicom").glob("*.dcm")):
        RadiographReader().get_data(RadiographReader().read(path))
        save_result(structured_report(read_source(str(path)), SCORES, MODEL), tmp_path / "report.dcm")
        assert errors(tmp_path / "report.dcm") == []
        capture = secondary_capture(read_source(str(path)), np.zeros((4, 4, 3), np.uint8), "heat map", MODEL)
        save_result(capture, tmp_path / "sc.dcm")
        assert errors(tmp_path / "sc.dcm") == []
