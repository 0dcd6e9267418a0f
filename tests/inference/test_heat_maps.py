"""Heat maps over the pixels of a file, and what a classifier says of the findings that they are of."""

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.inference import HeatMaps
from cleft_bundle.networks.heat_maps import Head, class_maps
from cleft_bundle.transforms import build_transforms


@pytest.fixture
def maps(classifier):
    return HeatMaps(classifier, build_transforms(classifier.preprocessing["transforms"]))


def load(maps, tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return maps.load({"image": str(tmp_path / "image.png")})


def test_maps_lie_over_the_pixels_of_the_file(maps, classifier, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (56, 40), np.uint8)
    found = maps(load(maps, tmp_path, pixels), ["pleural effusion", "edema"])
    assert found.shape == (2, 56, 40)
    image = torch.as_tensor(
        build_transforms(classifier.preprocessing["transforms"])({"image": str(tmp_path / "image.png")})["image"]
    )
    expected = class_maps(classifier, image[None], Head.of(classifier), [1, 0])[0]
    torch.testing.assert_close(found, expected[:, :, 8:48])  # padded to a square


def test_an_image_of_one_grey_has_finite_maps(maps, tmp_path):
    found = maps(load(maps, tmp_path, np.full((30, 50), 128, np.uint8)), ["edema"])
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("task", "scores", "called"),
    [
        ("multilabel", {"edema": 0.3, "pleural effusion": 0.9, "no finding": 0.9}, ["edema"]),
        ("multilabel", {"edema": 0.29999, "pleural effusion": 0.9, "no finding": 0.9}, []),
        ("multiclass", {"edema": 0.3, "pleural effusion": 0.4, "no finding": 0.3}, ["pleural effusion"]),
        ("multiclass", {"edema": 0.4, "pleural effusion": 0.4, "no finding": 0.2}, ["edema"]),
        ("multiclass", {"edema": 0.3, "pleural effusion": 0.3, "no finding": 0.4}, []),
    ],
)
def test_what_is_called_is_at_its_threshold_or_the_highest(maps, monkeypatch, task, scores, called):
    monkeypatch.setattr(maps.network, "task", task)
    maps.thresholds = {"edema": 0.3, "no finding": 0.1}
    assert maps.called(scores) == called
    assert maps.wanted("called", scores) == called
    assert [name for name in scores if maps.verdict(name, scores).called and name != "no finding"] == called


def test_a_verdict_in_words(maps, monkeypatch):
    scores = {"edema": 0.3, "pleural effusion": 0.42, "no finding": 0.28}
    maps.thresholds = {"edema": 0.30004}
    assert maps.verdict("edema", scores).sentence == "score 0.3000000, threshold 0.3000400: not called"
    assert maps.verdict("no finding", scores).sentence == "score 0.280: not called, no threshold"
    monkeypatch.setattr(maps.network, "task", "multiclass")
    assert maps.verdict("pleural effusion", scores).sentence == "score 0.420: called, the highest score"
    assert maps.verdict("edema", scores).sentence == "score 0.300: not called, the highest score is 0.420"
