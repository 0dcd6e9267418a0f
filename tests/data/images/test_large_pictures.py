import numpy as np
import pytest
from PIL import Image

from cleft_bundle.data.dicom.codestreams import decode_reduced
from cleft_bundle.data.images import large_pictures
from cleft_bundle.errors import RadiographError
from tests.data.dicom.test_codestreams import j2k, smooth
from tests.data.radiographs import load


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg"])
def test_the_readers_limit_decides_and_not_pillows(tmp_path, monkeypatch, name):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)
    options = {"compression": "tiff_lzw"} if name.endswith("tif") else {}
    Image.fromarray(pixels).save(tmp_path / name, **options)
    expected = load(tmp_path / name)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice that
    with pytest.raises(Image.DecompressionBombError), Image.open(tmp_path / name) as picture:
        picture.load()
    np.testing.assert_array_equal(load(tmp_path / name)[0], expected)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(RadiographError, match="is 60 x 50: 1 to 2999 pixels are expected"):
        load(tmp_path / name, max_pixels=2999)


def test_a_lower_level_of_a_large_jpeg_2000_image(monkeypatch):
    expected = decode_reduced(j2k(smooth()), 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(decode_reduced(j2k(smooth()), 1), expected)


def test_pillows_limit_is_back_after_a_picture_that_cannot_be_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:600])
    with (tmp_path / "x.png").open("rb") as file:
        picture = large_pictures.open_picture(file, "PNG")
        with pytest.raises(OSError, match="truncated"):
            large_pictures.load_picture(picture)
    assert Image.MAX_IMAGE_PIXELS == 10
