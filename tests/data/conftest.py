import pytest
from PIL import Image

from tests.data.radiographs import make_dicom


@pytest.fixture
def dicom(tmp_path):
    return make_dicom(tmp_path / "scene.dcm")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """The path of an image that all items of a test may share."""
    path = tmp_path_factory.mktemp("images") / "x.png"
    Image.new("L", (4, 4)).save(path)
    return str(path)
