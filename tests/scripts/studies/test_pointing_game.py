import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies.pointing_game import boxes_by_finding, pointing_chance, pointing_hit

from cleft_bundle.errors import BundleError


def peak(row, column, shape=(40, 60)):
    heat = np.random.default_rng(0).random(shape)
    heat[row, column] = 2
    return heat


@pytest.mark.parametrize(
    ("row", "column", "tolerance", "hit"),
    [
        *[(10, 20, 0, 1), (14, 25, 0, 1), (15, 20, 0, 0), (10, 26, 0, 0), (9, 20, 0, 0), (10, 19, 0, 0)],
        *[(15, 20, 1, 1), (15, 26, 1, 0), (15, 26, 1.5, 1), (10, 5, 15, 1), (10, 4, 15, 0)],
    ],
)
def test_a_peak_within_a_box_or_near_it_hits(row, column, tolerance, hit):
    assert pointing_hit(peak(row, column), [[20, 10, 6, 5]], tolerance) == hit


def test_any_of_several_boxes_counts():
    boxes = [[0, 0, 3, 3], [50, 30, 5, 5]]
    assert pointing_hit(peak(32, 52), boxes, 0) == 1
    assert pointing_hit(peak(20, 20), boxes, 0) == 0


@given(
    box=st.tuples(st.floats(0, 29), st.floats(0, 19), st.floats(1, 30), st.floats(1, 20)),
    tolerance=st.floats(0, 20),
)
def test_a_flat_map_hits_as_often_as_chance_and_chance_is_the_share_of_single_points(box, tolerance):
    flat = np.ones((20, 30))
    chance = pointing_chance((20, 30), [box], tolerance)
    assert pointing_hit(flat, [box], tolerance) == pytest.approx(chance)
    hits = []
    for row in range(20):
        for column in range(30):
            dx = max(box[0] - column, 0, column - (box[0] + box[2] - 1))
            dy = max(box[1] - row, 0, row - (box[1] + box[3] - 1))
            hits.append(np.hypot(dx, dy) <= tolerance)
    assert chance == pytest.approx(np.mean(hits))


@pytest.mark.parametrize(
    ("heat", "boxes", "tolerance", "message"),
    [
        (np.full((4, 4), np.nan), [[0, 0, 2, 2]], 0, "finite map"),
        (np.ones((1, 4, 4)), [[0, 0, 2, 2]], 0, "finite map"),
        (np.ones((4, 4)), [], 0, "one or more"),
        (np.ones((4, 4)), [[0, 0, 0, 2]], 0, "with a size"),
        (np.ones((4, 4)), [[0, 0, 2]], 0, "one or more"),
        (np.ones((4, 4)), [[0, 0, 2, 2]], -1, "tolerance"),
    ],
)
def test_what_is_no_map_or_no_box_is_refused(heat, boxes, tolerance, message):
    with pytest.raises(BundleError, match=message):
        pointing_hit(heat, boxes, tolerance)


def test_boxes_go_with_their_findings():
    item = {"boxes": [[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]], "box_findings": ["edema", "mass", "edema"]}
    assert boxes_by_finding(item) == {"edema": [[1, 2, 3, 4], [1, 1, 1, 1]], "mass": [[5, 6, 7, 8]]}
    assert boxes_by_finding({}) == {}
    with pytest.raises(BundleError, match="1 boxes, but 0 box_findings"):
        boxes_by_finding({"boxes": [[1, 2, 3, 4]]})
