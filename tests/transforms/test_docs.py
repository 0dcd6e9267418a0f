import re
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from cleft_bundle.data import phantoms
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "transforms.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
TITLES = [re.findall(r"^## (.*)", TEXT[: TEXT.index(block)], re.MULTILINE)[-1] for block in BLOCKS]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with the files that the page names."""
    folder = tmp_path_factory.mktemp("images")
    for draw, name in ((phantoms.chest, "chest.dcm"), (phantoms.breast, "mammogram.dcm")):
        drawn = draw(str(folder / "phantoms"), patients=5, seed=0)
        shutil.copy(sorted((folder / "phantoms" / drawn).rglob("*.dcm"))[0], folder / name)
    shape = pydicom.dcmread(folder / "mammogram.dcm").pixel_array.shape
    Image.fromarray(np.eye(*shape, dtype=np.uint8) * 255).save(folder / "mask.png")
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=TITLES)
def test_every_block_runs_as_it_stands(block, images, monkeypatch):
    monkeypatch.chdir(images)
    exec(compile(block, "docs/transforms.md", "exec"), {"CONFIGS": str(ROOT / "configs")})  # noqa: S102 - that is the test


def test_blocks_are_short_and_pictures_exist():
    assert len(BLOCKS) == 9
    for block in BLOCKS:
        assert len(block.splitlines()) <= 25
    pictures = re.findall(r"\]\((images/.*?)\)", TEXT)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / "docs" / picture).stat().st_size < 150_000
