import json

import numpy as np
import pytest
from studies.chexlocalize import add_masks, fitted
from studies.pointing_game import marks_by_finding, pointing_chance, pointing_hit

from cleft_bundle.errors import BundleError
from tests.data.images.test_run_lengths import compressed, runs


def mask_of(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


MASK = mask_of((40, 30), slice(4, 12), slice(10, 20))


def encoded(mask):
    return {"size": list(mask.shape), "counts": compressed(runs(mask))}


@pytest.fixture
def path(tmp_path):
    entries = {"Airspace Opacity": encoded(MASK), "Edema": encoded(np.zeros_like(MASK))}
    file = tmp_path / "gt_segmentations_val.json"
    file.write_text(json.dumps({"patient64541_study1_view1_frontal": entries}))
    return file


def test_masks_come_to_the_items_of_their_images(path):
    items = [{"name": f"val/patient6454{n}/study1/view1_frontal.jpg"} for n in (1, 2)]
    (item,) = add_masks(items, path)
    assert item["name"] == items[0]["name"]
    assert list(item["masks"]) == ["lung opacity"]
    assert (item["masks"]["lung opacity"] == MASK).all()
    with pytest.raises(BundleError, match="none of its 1 images with a mask is among the 1 items"):
        add_masks(items[1:], path)
    path.write_text('{"patient64541_study1_view1_frontal": ["Edema"]}')
    with pytest.raises(BundleError, match="expected masks by finding for patient64541_study1_view1_frontal"):
        add_masks(items, path)


def test_the_game_on_a_mask(path):
    heat = np.zeros(MASK.shape)
    heat[4, 10] = 1.0
    assert pointing_hit(heat, MASK, 0) == 1.0
    assert pointing_chance(MASK.shape, MASK, 0) == MASK.mean()
    beside = np.roll(heat, -3, axis=0)
    assert [pointing_hit(beside, MASK, tolerance) for tolerance in (0, 2.9, 3)] == [0.0, 0.0, 1.0]
    box = [[10, 4, 10, 8]]
    for tolerance in (0, 1, 5):
        assert pointing_chance(MASK.shape, MASK, tolerance) == pointing_chance(MASK.shape, box, tolerance)
    for bad in (MASK.T, np.zeros_like(MASK)):
        with pytest.raises(BundleError, match="expected a mask of shape"):
            pointing_hit(heat, bad)


def test_masks_of_the_published_size_fit_the_small_release():
    assert (fitted(np.kron(MASK, np.ones((3, 3), bool)), MASK.shape) == MASK).all()
    marks = marks_by_finding({"masks": {"edema": np.kron(MASK, np.ones((5, 5), bool))}}, MASK.shape)
    assert (marks["edema"] == MASK).all()
    with pytest.raises(BundleError, match="does not fit a picture"):
        fitted(MASK, (30, 40))
