"""Training on the labels of a datalist, as the MONAI Label application starts it."""

import json

import mlflow
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cleft_bundle.checkpoints import load_classifier
from tests.configs.conftest import TINY

pytestmark = pytest.mark.slow
METHODS = {
    "linear": ["train.json", "label_training.json"],
    "prompt": ["train.json", "prompt_tuning.json", "label_training.json", "label_prompt.json"],
    "image_tower": ["train.json", "finetune.json", "label_training.json", "label_image_tower.json"],
}


@pytest.fixture
def served(run_config, chest_phantoms, tmp_path):
    """A classifier that was trained for one epoch, and the datalist of its training as labels."""
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    (tmp_path / "eval").rename(tmp_path / "trained")
    return tmp_path / "models" / "model.pt"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_proposes_a_classifier_and_measures_it_beside_the_served_one(
    method, served, run_config, chest_phantoms, tmp_path
):
    before = served.read_bytes()
    uri = f"sqlite:///{tmp_path}/runs.db"
    options = TINY | {"epochs": 2, "datalist_file": str(tmp_path / "trained" / "datalist.json"), "tracking_uri": uri}
    options["dataset_dir"] = chest_phantoms
    run = run_config(METHODS[method], "training", **options)
    assert served.read_bytes() == before

    old, new = load_classifier(served), load_classifier(tmp_path / "eval" / "model.pt")
    assert (new.class_names, new.task, new.preprocessing) == (old.class_names, old.task, old.preprocessing)
    towers = [network.image_encoder.state_dict() for network in (old, new)]
    same = all(torch.equal(towers[0][name], towers[1][name]) for name in towers[0])
    assert same == (method != "image_tower")
    if method != "linear":  # cross-validation may leave the linear head where it is
        assert not torch.allclose(old.calibrated_head()[0], new.calibrated_head()[0], atol=1e-4)

    outcome = json.loads((tmp_path / "eval" / "model.json").read_text())
    splits = run.parser.get_parsed_content("splits")
    assert [outcome[f"{name}_images"] for name in ("train", "validation")] == [
        len(splits[name]) for name in ("train", "validation")
    ]
    assert outcome["calibrated"] == (len(splits["validation"]) >= 30)
    if outcome["calibrated"]:
        assert new.operating_point["calibration_images"] == outcome["validation_images"]
        low, high = new.operating_point["temperature_interval"]
        assert low < 1 < high, "the head has taken the temperature in"
    else:
        assert "temperature_interval" not in new.operating_point
    prepare = run.parser.get_parsed_content("label_transforms")
    images = torch.stack([prepare({"image": item["image"]})["image"] for item in splits["validation"]])
    labels = np.array([item["label"] for item in splits["validation"]])
    for when, network in (("before", old), ("after", new)):
        with torch.no_grad():
            scores = network(images).numpy()
        for place, name in enumerate(new.class_names):
            if 0 < labels[:, place].sum() < len(labels):
                expected = roc_auc_score(labels[:, place], scores[:, place])
                assert outcome[when][f"auroc/{name}"] == pytest.approx(expected, abs=1e-6)
    runs = mlflow.MlflowClient(uri).search_runs(["1"])
    assert [one.info.status for one in runs] == ["FINISHED"]
    assert runs[0].data.metrics["best_auroc_macro_after"] == pytest.approx(outcome["after"]["auroc_macro"])
