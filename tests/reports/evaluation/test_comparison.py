import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import delong_test, holm
from cleft_bundle.reports.evaluation import Comparison, Resampling

FEW = Resampling(resamples=60)


def kept(make_scored, folder, **given):
    scored = make_scored(**given)
    Comparison("other", [], scored.items, scored.class_names).estimates(scored, FEW, folder)
    return scored


def test_each_is_compared_at_its_own_thresholds(make_scored, tmp_path):
    own = make_scored()
    other = kept(make_scored, tmp_path, scores=own.scores**3, thresholds={"effusion": 0.125, "edema": 0.9})
    (found,) = Comparison("own", [tmp_path], own.items, own.class_names).estimates(own, FEW, tmp_path / "own")
    metrics = found["metrics"]
    assert metrics["auroc_macro"]["value"] == 0  # a power changes no ranking
    assert metrics["sensitivity/effusion"]["value"] == 0  # nor does it change a call, as the threshold goes along
    positive = own.labels[:, 1] == 1
    expected = (own.scores[:, 1] >= 0.4)[positive].mean() - (other.scores[:, 1] >= 0.9)[positive].mean()
    assert metrics["sensitivity/edema"]["value"] == pytest.approx(expected)
    assert metrics["brier/edema"]["value"] != 0


def test_delong_and_holm_stand_beside_the_bootstrap(make_scored, tmp_path):
    own = make_scored()
    noise = np.random.default_rng(3).random(own.scores.shape)
    other = kept(make_scored, tmp_path, scores=0.5 * own.scores + 0.5 * noise)
    (found,) = Comparison("own", [tmp_path], own.items, own.class_names).estimates(own, FEW, tmp_path / "own")
    patients = own.predictions.patients
    for number, name in enumerate(own.class_names):
        test = delong_test(own.scores[:, number], other.scores[:, number], own.labels[:, number], patients)
        assert found["delong"][name]["p_value"] == pytest.approx(test.p_value)
        assert found["delong"][name]["value"] == pytest.approx(test.difference)
    given = {name: row["p_value"] for name, row in found["delong"].items()}
    assert {name: row["holm"] for name, row in found["delong"].items()} == pytest.approx(holm(given))
    assert all(row["holm"] >= row["p_value"] for row in found["metrics"].values() if row["p_value"] is not None)


def test_other_images_and_other_classes_are_refused(make_scored, tmp_path):
    own = kept(make_scored, tmp_path)
    with pytest.raises(BundleError, match="1 are in one only"):
        Comparison("own", [tmp_path], own.items[1:], own.class_names)
    with pytest.raises(BundleError, match="has the classes effusion, edema"):
        Comparison("own", [tmp_path], own.items, ["edema"])
    with pytest.raises(BundleError, match="does not exist"):
        Comparison("own", [tmp_path / "nowhere"], own.items, own.class_names)
