import base64
import io

import torch
from PIL import Image

from cleft_bundle.names import shorten
from cleft_bundle.reports.pages import draw, thumbnail


def test_thumbnails_are_small_grey_pictures_within_the_page():
    uri = thumbnail(torch.linspace(0, 1, 400 * 200).reshape(1, 400, 200))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (picture.size, picture.mode) == ((112, 224), "L")


def test_long_text_keeps_its_end():
    assert shorten("a" * 30 + " the end", 20).endswith("the end")
    assert len(shorten("a" * 300, 95)) <= 95


def test_the_same_drawing_is_the_same_text():
    one, other = (draw(lambda figure: figure.subplots().plot([0, 1]), size=(2.0, 2.0)) for _ in range(2))
    assert one == other
    assert one.startswith("data:image/svg+xml;base64,")
