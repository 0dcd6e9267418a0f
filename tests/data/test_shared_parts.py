import logging
import math

import numpy as np
import pytest

from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import items as parts

PROMPTS = PromptSet((["with {findings}"], ["aged {age}"]), {"edema": ["e"], "mass": ["m"]})


def test_what_is_unknown_is_left_out():
    details = parts.known(view="", sex=None, age=math.nan, laterality="L", boxes=[], count=0)
    assert details == {"laterality": "L", "boxes": [], "count": 0}


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"sex": "F", "laterality": "R", "age": 61.9, "view": "PA"}, {"sex": "female", "side": "right", "age": 61}),
        ({"sex": "M", "age": 1.0}, {"sex": "male", "age": 1}),
        ({"age": 0.4}, {}),
        ({}, {}),
    ],
)
def test_words_of_details(details, words):
    assert parts.words_of(details) == words | ({"view": "PA"} if "view" in details else {})


def test_labels_of_findings():
    np.testing.assert_equal(parts.labels({"mass": 1.0, "fracture": 1.0}, PROMPTS), [np.nan, 1.0])


def test_captions_of_words():
    write = parts.caption_writer(PROMPTS)
    assert write({"findings": "edema", "age": 4}) == {"caption": "with edema", "captions": ["with edema", "aged 4"]}
    assert write({"age": 4}) == {"caption": "aged 4"}
    assert write({"view": "PA"}) == {}


def test_files_of_folders_and_what_the_log_says_of_them(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for path in ("images_002/b.png", "images_001/a.png", "images_002/a.png", "notes.txt", "c.PNG"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    files = parts.image_files(tmp_path, ["images_*", ".", "nowhere"])
    assert {name: files[name] for name in ("a.png", "b.png", "c.PNG", "notes.txt")} == {
        "a.png": "images_001/a.png",
        "b.png": "images_002/b.png",
        "c.PNG": "c.PNG",
        "notes.txt": "notes.txt",
    }
    parts.report_images(logging.getLogger("cleft_bundle"), {"a.png", *(f"{n}.png" for n in range(5))}, files)
    assert "5 of 6 images of the table are not there: 0.png, 1.png, 2.png, ..." in caplog.text
    assert "2 images without a row left out: c.PNG, b.png" in caplog.text or "b.png, c.PNG" in caplog.text
    assert "notes.txt" not in caplog.text
