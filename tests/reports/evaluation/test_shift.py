import numpy as np
import pytest
from PIL import Image

from cleft_bundle.checkpoints.patient_roles import count_images
from cleft_bundle.reports.evaluation.shift import EMBEDDING, Sample, looked_at, sample_of, sample_of_counts, shift


def people(count, age, view):
    return [{"patient_id": f"p{number}", "age": age + number % 10, "view": view, "sex": "F"} for number in range(count)]


def rows(found):
    return {row["name"]: row for row in found["rows"]}


def test_children_and_adults_differ_and_what_is_not_known_is_named():
    found = shift(sample_of(people(40, 2, "AP")), sample_of(people(30, 50, "PA")))
    ages = rows(found)["age in years"]["measures"]
    assert ages["largest distance of cumulative shares"] == 1
    assert ages["standardised difference"] > 10
    assert rows(found)["view"]["measures"] == {"total variation": 1.0}
    assert rows(found)["sex"]["measures"] == {"total variation": 0.0}
    assert {"scanner", "side", EMBEDDING} <= set(found["unknown"])
    assert shift(None, sample_of(people(3, 2, "AP"))) is None


def test_the_counts_that_a_file_stores_are_compared_in_bands():
    counts = count_images(people(40, 20, "AP"))
    same = shift(sample_of_counts(counts), sample_of(people(20, 20, "AP")))
    assert rows(same)["age in years"]["measures"]["total variation"] == 0
    older = shift(sample_of_counts(counts), sample_of(people(20, 70, "AP")))
    assert rows(older)["age in years"]["measures"]["total variation"] == 1
    assert rows(older)["sex"]["measures"]["total variation"] == 0
    assert sample_of_counts({}) is None


def test_grey_levels_are_those_of_the_pictures(tmp_path):
    items = []
    for number, white in enumerate((2, 4, 6)):
        pixels = np.zeros((10, 10), dtype=np.uint8)
        pixels[:white] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        items.append({"image": str(tmp_path / f"{number}.png"), "patient_id": f"p{number}"})
    items.append({"image": str(tmp_path / "none.png"), "patient_id": "p3"})
    sample = looked_at(items, 10, lambda some: np.ones((len(some), 2)))
    np.testing.assert_allclose(sample.values["brightness"], [0.2, 0.4, 0.6], atol=1e-6)
    assert sample.embeddings.shape == (3, 2)
    assert list(sample.owners) == ["p0", "p1", "p2"]


def test_embeddings_that_lie_apart_are_told_apart():
    rng = np.random.default_rng(0)
    owners = [f"p{number}" for number in range(60)]
    near = Sample({}, rng.normal(size=(60, 4)), owners)
    far = Sample({}, rng.normal(size=(60, 4)) + 3, [f"q{number}" for number in range(60)])
    measures = rows(shift(near, far))[EMBEDDING]["measures"]
    assert measures["AUROC of telling the two apart"] > 0.95
    assert measures["Frechet distance"] == pytest.approx(36, rel=0.3)
