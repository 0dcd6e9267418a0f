import os

import numpy as np
import pytest

from cleft_bundle.commands import looking
from cleft_bundle.commands.looking import Look, look_at, look_at_all, mark_duplicates
from cleft_bundle.data import RadiographReader
from tests.data.radiographs import make_dicom, scene


@pytest.fixture
def files(tmp_path):
    return {make_dicom(tmp_path / f"{n}.dcm", np.roll(scene(), n, axis=1)): f"file {n}" for n in range(5)}


def test_processes_see_what_this_one_sees(files):
    alone, together = look_at_all(files, 16, 0), look_at_all(files, 16, 2)
    assert [look.row for look in alone] == [look.row for look in together]
    assert [look.row["file"] for look in alone] == list(files.values())
    for one, other in zip(alone, together, strict=True):
        assert (one.digest, one.instance) == (other.digest, other.instance)
        np.testing.assert_array_equal(one.picture, other.picture)


def test_small_pictures_keep_the_shape(files):
    picture = look_at(next(iter(files)), 24).picture
    assert (picture.shape, picture.dtype) == ((24, 16), np.uint8)
    np.testing.assert_allclose(picture.mean() / 255, scene().mean() / 4095, atol=0.02)
    assert look_at(next(iter(files))).picture is None


def test_a_decoder_that_ends_its_process_is_an_error_of_its_file(files, monkeypatch):
    """The processes are forked, and so have the reader that is made to fail here."""
    bad = list(files)[2]
    read = looking.RadiographReader.get_data

    def get_data(self, file):
        if file.path == bad:
            os._exit(1)
        return read(self, file)

    monkeypatch.setattr(looking.RadiographReader, "get_data", get_data)
    monkeypatch.setattr(looking, "_BATCH", 4)
    errors = [look.row["error"] for look in look_at_all(files, 0, 2)]
    assert errors == ["", "", "ends the process that decodes it", "", ""]


def test_duplicates_name_the_first():
    pairs = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "z"), ("", ""), ("", "")]
    looks = [Look(instance=instance, digest=digest) for instance, digest in pairs]
    for number, each in enumerate(looks):
        each.row["file"] = str(number)
    found = [(look.row["duplicate_of"], look.row["duplicate_by"]) for look in mark_duplicates(looks)]
    assert found == [
        *(("", ""), ("0", "instance and pixels"), ("0", "instance"), ("0", "pixels"), ("3", "instance")),
        *(("4", "pixels"), ("", ""), ("", "")),
    ]


@pytest.mark.shared_data
def test_a_chest_without_an_orientation_is_told_by_its_pixels(shared_data, tmp_path):
    source = shared_data / "data" / "dicom" / "rsna_CR_MONO2_JPEGbaseline.dcm"
    assert look_at(str(source)).row["orientation_check"] == "upright"
    image, _ = RadiographReader().get_data(RadiographReader().read(str(source)))
    lying = make_dicom(tmp_path / "lying.dcm", (np.rot90(image) * 4095).astype(np.uint16), Modality="CR")
    assert look_at(str(lying)).row["orientation_check"] == "rotate 270?"
    told = make_dicom(tmp_path / "told.dcm", (image * 4095).astype(np.uint16), PatientOrientation=["L", "F"])
    assert look_at(str(told)).row["orientation_check"] == ""
