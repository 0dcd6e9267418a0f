import json

import nibabel as nib
import numpy as np
from PIL import Image

from cleft_bundle.apps.monai_label.lib.results import (
    heat_levels,
    level_names,
    patient_affine,
    prediction,
    write_markups,
)
from cleft_bundle.networks.heat_maps import SCALE

SCORES = {"edema": 0.91234, "no finding": 0.1}


def test_scores_in_the_form_of_monai_label():
    assert prediction(SCORES) == [
        {"idx": 0, "label": "edema", "score": 0.91234},
        {"idx": 1, "label": "no finding", "score": 0.1},
    ]


def test_markups_lie_on_the_image_one_below_the_other(tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    affine = patient_affine(tmp_path / "a.png", np.array([0.2, 0.1]))
    write_markups(tmp_path / "a.json", SCORES, (40, 60), affine)
    (markup,) = json.loads((tmp_path / "a.json").read_text())["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    labels, positions = zip(*((point["label"], point["position"]) for point in markup["controlPoints"]), strict=True)
    assert labels == ("edema 0.912", "no finding 0.100")
    (left, first, _), (same, second, _) = positions
    assert left == same
    assert 0 < left < 60 * 0.1  # mm to the left, as a viewer lays out a picture
    assert 0 < first < second < 40 * 0.2


def test_a_nifti_says_where_it_lies(tmp_path):
    affine = np.array([[0, 0.5, 0, 3.0], [-2, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((6, 4, 1), np.uint8), affine), tmp_path / "a.nii.gz")
    np.testing.assert_allclose(patient_affine(tmp_path / "a.nii.gz", np.array([9.0, 9.0])), affine)


def test_unknown_spacing_is_one(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(patient_affine(tmp_path / "a.png", np.full(2, np.nan)), np.diag([-1, -1, 1, 1]))


def test_levels_of_a_heat_map_are_values_and_not_shares_of_it():
    heat = np.linspace(-SCALE, 2 * SCALE, 12_000).reshape(100, 120)
    levels = heat_levels(heat)
    assert levels.dtype == np.uint8
    for level, least in enumerate((0.25, 0.5, 0.75), start=1):
        np.testing.assert_array_equal(levels >= level, heat >= least * SCALE)
    assert not heat_levels(heat * 1e-9).any(), "a map without anything in it marks nothing"
    names = level_names("edema")
    assert list(names.values()) == [1, 2, 3]
    assert list(names)[1] == f"edema, {SCALE / 2:g} or more"
