import numpy as np
import pytest
from PIL import Image

from tests import processes
from tests.conftest import ROOT

PRESET = ROOT / "configs" / "transforms_mammography.json"


def gallery(*arguments, cwd):
    return processes.run(["-m", "cleft_bundle", "gallery", *arguments], cwd)


@pytest.mark.slow
def test_a_gallery_of_files_and_folders(tmp_path, draw_mammogram):
    (tmp_path / "folder").mkdir()
    for name, side in (("one.png", "left"), ("folder/two.png", "right"), ("folder/three.png", "left")):
        image = draw_mammogram(chest_wall=side).image
        Image.fromarray(np.rint(image * 65535).astype(np.uint16)).save(tmp_path / name)
    done = gallery(PRESET, "one.png", "folder", "--out", "out/g.png", "--size", 100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(tmp_path / "out" / "g.png"))
    assert picture.shape == (3 * 104, 3 * 104, 3)
    yellow = (picture == (255, 210, 0)).all(-1)
    assert yellow[:100].any()
    assert not yellow[104:].any()
    assert (picture[104:204, 0:3] > 60).any()  # the chest wall is left in the prepared one


@pytest.mark.slow
def test_an_image_that_is_none_is_one_line(tmp_path):
    (tmp_path / "x.png").write_text("no image")
    done = gallery(PRESET, "x.png", "--out", "g.png", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: x.png: is not an image")
    assert not (tmp_path / "g.png").exists()
