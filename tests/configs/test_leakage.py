"""A split is written, read back, remembered by the checkpoint, and defended against it."""

import json

import numpy as np
import pytest
import torch
from monai.data import load_decathlon_datalist
from PIL import Image

from cleft_bundle.checkpoints import ROLES, load_classifier, roles, save
from cleft_bundle.checkpoints.trained_on import recall
from cleft_bundle.data import fingerprint
from tests.configs.conftest import TINY, bundle_error

pytestmark = pytest.mark.slow


def patients(items):
    return {item["patient_id"] for item in items}


def test_a_run_leaves_its_split_and_no_patient_of_it_can_be_evaluated_unnoticed(run_config, chest_phantoms, tmp_path):
    data = TINY | {"dataset_dir": chest_phantoms, "tracking_uri": "", "train_fraction": 0.5, "balanced_test": 2}
    nobody = dict.fromkeys(ROLES, 0)
    trained = run_config(["train.json"], "training", **data, prompt_file=few_classes(tmp_path))
    splits = trained.parser.get_parsed_content("splits")
    stored = torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["trained_on"]
    assert stored["fingerprint"] == fingerprint(splits)
    trained, chosen = len(patients(splits["train"])), len(patients(splits["validation"]))
    assert stored["counts"] == nobody | {"weights": trained, "epoch": chosen}
    served = load_classifier(tmp_path / "models" / "model.pt").provenance
    assert roles(served, splits["train"]) == nobody | {"weights": trained}
    assert roles(served, splits["validation"]) == nobody | dict.fromkeys(("epoch", "calibration", "thresholds"), chosen)
    assert roles(served, splits["test"]) == nobody

    path = tmp_path / "eval" / "datalist.json"
    assert json.loads(path.read_text())["fingerprint"] == fingerprint(splits)
    loaded = load_decathlon_datalist(path, data_list_key="test", base_dir=chest_phantoms)
    assert [item["image"] for item in loaded] == [item["image"] for item in splits["test"]]

    data |= {"train_fraction": 1.0, "balanced_test": None, "prompt_file": few_classes(tmp_path)}
    files = ["train.json", "data_datalist.json", "evaluate.json"]
    for split in ("validation", "test"):
        evaluated = run_config(files, "evaluating", **data, datalist_file=str(path), evaluate_split=split)
        assert fingerprint(evaluated.parser.get_parsed_content("splits")) == stored["fingerprint"]
        assert len(evaluated.evaluator.state.metric_details["zero_shot_auroc"]["scores"]) == len(splits[split])

    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", "evaluate.json"], "evaluating", **data, evaluate_split="train")
    count = len(patients(splits["train"]))
    assert f"trained on {count} of the " in bundle_error(caught)
    run_config(
        ["train.json", "evaluate.json"],
        "evaluating",
        **data,
        evaluate_split="train",
        allow_trained_patients=True,
    )


def test_patients_who_chose_the_model_are_no_test(run_config, chest_phantoms, tmp_path, caplog):
    data = TINY | {"dataset_dir": chest_phantoms, "tracking_uri": "", "resamples": 20, "report_cases": 0}
    trained = run_config(["train.json"], "training", **data)
    chosen = len(patients(trained.parser.get_parsed_content("splits")["validation"]))
    path = tmp_path / "eval" / "datalist.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"test": content["validation"], "validation": content["test"]}))
    remembered = recall(tmp_path / "models" / "model.pt").pictures
    shown = {use: len(digests) for use, digests in remembered.items()}
    splits = trained.parser.get_parsed_content("splits")
    assert shown == {"learnt": len(splits["train"]), "chosen": len(splits["validation"])}
    files = ["train.json", "data_datalist.json", "evaluate.json"]
    data |= {"datalist_file": str(path)}
    with pytest.raises(RuntimeError) as caught:
        run_config(files, "evaluating", **data, evaluate_split="test")
    assert f"{chosen} of the {chosen} patients of split test" in bundle_error(caught)
    assert f"(epoch {chosen})" in bundle_error(caught)
    # of these data no patients are left on whom thresholds could be chosen afresh
    allowed = {"allow_chosen_patients": True, "allow_trained_patients": True}
    run_config(files, "evaluating", **data, evaluate_split="test", **allowed)
    assert f"{chosen} of the {chosen} patients of split test" in caplog.text


def test_half_of_the_validation_patients_are_no_test_of_the_model_that_they_chose(run_config, tmp_path):
    folder = tmp_path / "hospital"
    folder.mkdir()
    rows = ["image,finding,patient_id,split"]
    for number in range(32):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        finding = ("pneumonia", "no finding")[number % 2]
        rows.append(f"{number}.png,{finding},p{number},{'train' if number < 16 else 'valid'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    data = TINY | {"dataset_dir": str(folder), "tracking_uri": "", "resamples": 20, "report_cases": 0}
    files = ["train.json", "data_folder.json"]
    run_config(files, "training", **data)
    data |= {"test_fraction": 0.5}
    with pytest.raises(RuntimeError) as caught:
        run_config([*files, "evaluate.json"], "evaluating", **data, evaluate_split="test")
    assert "8 of the 8 patients of split test are those on whom it was chosen (epoch 8)" in bundle_error(caught)
    run_config([*files, "evaluate.json"], "evaluating", **data, evaluate_split="test", allow_chosen_patients=True)
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "The figures flatter this classifier: its epoch was chosen on 8 of the 8 patients reported here" in page
    assert page.count('<small class="mark">trained or tuned on some of these patients') == 4


def test_a_picture_that_was_trained_on_is_noticed_under_another_patient_of_the_test(run_config, tmp_path, caplog):
    folder = tmp_path / "hospital"
    folder.mkdir()
    rows = ["image,finding,patient_id,split"]
    for number in range(32):
        shown = 0 if number == 30 else number  # a picture of the training, under a patient of the test
        pixels = np.random.default_rng(shown).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        split = "train" if number < 16 else "valid" if number < 24 else "test"
        rows.append(f"{number}.png,{('pneumonia', 'no finding')[number % 2]},p{number},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    data = TINY | {"dataset_dir": str(folder), "tracking_uri": "", "resamples": 20, "min_epochs": 1, "min_steps": 0}
    run_config(["train.json", "data_folder.json", "finetune.json"], "training", **data, source="random")
    assert "1 of the 8 images to be evaluated are pictures that it was trained on, and 0 that it was" in caplog.text


def few_classes(folder):
    """A prompt file of two findings that the phantoms have often."""
    names = ["cardiomegaly", "pleural effusion"]
    path = folder / "prompts.json"
    path.write_text(json.dumps({"caption": ["with {findings}"], "classes": {name: [name] for name in names}}))
    return str(path)


def test_a_prompt_is_not_tuned_against_patients_that_were_trained_on(run_config, chest_phantoms, tmp_path):
    data = TINY | {"dataset_dir": chest_phantoms, "tracking_uri": ""}
    first = run_config(["train.json"], "training", **data)
    trained = len(patients(first.parser.get_parsed_content("splits")["train"]))
    state = torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)
    state["trained_on"]["pictures"] = {}  # so that those of the second stage are its own
    save(state, tmp_path / "models" / "cleft.pt")
    files = ["train.json", "prompt_tuning.json"]
    tuned = run_config(files, "training", **data, train_fraction=0.25, context_length=12)
    shown = recall(tmp_path / "models" / "cleft_prompt.pt").pictures
    splits = tuned.parser.get_parsed_content("splits")
    assert {use: len(digests) for use, digests in shown.items()} == {
        "learnt": len(splits["train"]),
        "chosen": len(splits["validation"]),
    }
    stored = torch.load(tmp_path / "models" / "cleft_prompt.pt", weights_only=True)["trained_on"]["counts"]
    assert stored["weights"] == trained, "the patients of the first stage count as well"
    assert 0 < stored["prompts"] < trained

    path = tmp_path / "eval" / "datalist.json"
    content = json.loads(path.read_text())
    content["training"], content["validation"] = content["validation"], content["training"]
    path.write_text(json.dumps(content))
    files = ["train.json", "prompt_tuning.json", "data_datalist.json"]
    with pytest.raises(RuntimeError) as caught:
        run_config(files, "training", **data, datalist_file=str(path), context_length=12)
    assert "--allow_trained_patients true" in bundle_error(caught)
