import pytest

from tests.data.radiographs import make_dicom


@pytest.fixture
def dicom(tmp_path):
    return make_dicom(tmp_path / "scene.dcm")
