"""Classes that exclude each other on images of none and of several: every training on labels takes the same images."""

import json

import pytest
import torch

from cleft_bundle.data.usable_labels import label_matrix, usable_rows
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
CLASSES = {"prompt_file": str(ROOT / "configs" / "prompts" / "chexpert_5x200.json"), "task": "multiclass"}
LEFT_OUT = "left out of the training on labels: 56 of 106 images; 50 of 106 have a usable label (multiclass): "


def test_probe_fine_tuning_and_prompt_tuning_learn_from_the_same_images(run_config, chest_phantoms, tmp_path, caplog):
    options = TINY | CLASSES | {"dataset_dir": chest_phantoms, "tracking_uri": "", "resamples": 20}
    with caplog.at_level("INFO"):
        trained = run_config(["train.json"], "training", **options)
    # a training on captions takes them all; its validation measures by the usable ones
    assert len(trained.train_dataset_data) == 106
    assert LEFT_OUT not in caplog.text
    assert "validation: 22 images of 12 patients; 9 of 22 have a usable label (multiclass): 9 of none" in caplog.text
    expected = {
        item["name"]
        for item, usable in zip(
            trained.train_dataset_data,
            usable_rows(label_matrix(trained.train_dataset_data), "multiclass"),
            strict=True,
        )
        if usable
    }

    caplog.clear()
    fractions = {"fractions": [1.0], "sources": ["random"]}
    with caplog.at_level("INFO"):
        probed = run_config(["train.json", "linear_probe.json"], "probing", **options | fractions)
        tuned = run_config(["train.json", "finetune.json"], "training", **options, source="random", min_steps=1)
        options |= {"context_length": 8, "warmup_steps": 1}
        prompted = run_config(["train.json", "prompt_tuning.json"], "training", **options)
    assert caplog.text.count(LEFT_OUT) == 3
    probe = probed.parser.get_parsed_content("probe_grid").training[1.0]
    for items in (probe, tuned.train_dataset_data, prompted.train_dataset_data):
        assert {item["name"] for item in items} == expected
    points = json.loads((tmp_path / "eval" / "label_efficiency.json").read_text())["points"]
    assert [(point["method"], point["train_images"]) for point in points] == [("fine-tuning", 50), ("linear probe", 50)]
    records = [run.parser.get_parsed_content("train#record") for run in (tuned, prompted)]
    losses = [value for record in records for value in record.loss_curve.losses]
    assert torch.isfinite(torch.tensor(losses)).all()

    contrastive = run_config(["train.json", "prompt_tuning.json"], "training", **options, objective="contrastive")
    assert len(contrastive.train_dataset_data) == 106


@pytest.mark.parametrize(("overlay", "run_id"), [("linear_probe.json", "probing"), ("finetune.json", "training")])
def test_no_usable_label_at_all_is_one_line_that_says_what_is_expected(overlay, run_id, run_config, chest_phantoms):
    several = "[item | {'label': [1.0, 1.0, 0.0, 0.0, 0.0]} for item in splits['train']]"
    options = TINY | CLASSES | {"dataset_dir": chest_phantoms, "tracking_uri": ""}
    options["splits"] = f"$(lambda splits: splits | {{'train': {several}}})(cleft_bundle.data.make_splits(@items))"
    options |= {"sources": ["random"]} if run_id == "probing" else {"source": "random"}
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", overlay], run_id, **options)
    assert bundle_error(caught) == (
        "no label to train on: expected images that are positive for exactly one class (task 'multiclass'), but 0 of "
        "106 have a usable label (multiclass): 106 of several"
    )
