"""The classifier of other classes, from a trained checkpoint and validation images."""

import json

import pytest
from monai.bundle import ConfigParser

from cleft_bundle.checkpoints import load_classifier
from tests import processes
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

CLASSES = ["pleural effusion", "no finding"]


@pytest.mark.slow
def test_it_is_calibrated_on_validation_images_and_never_on_those_of_the_training(run_config, chest_phantoms, tmp_path):
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    prompts = json.loads((ROOT / "configs" / "prompts" / "chexpert.json").read_text())
    prompts["classes"] = {name: {} for name in CLASSES}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    options = TINY | {
        "dataset_dir": chest_phantoms,
        "models_dir": str(tmp_path / "models"),
        "model_path": str(tmp_path / "new.pt"),
    }

    build = ["-m", "cleft_bundle", "build", str(tmp_path / "prompts.json"), "--calibrate"]
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [*build, f"--config_file={ROOT / 'configs' / 'train.json'}", *flags]
    done = processes.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    classifier = load_classifier(tmp_path / "new.pt")
    assert classifier.class_names == CLASSES
    assert classifier.operating_point["thresholds"].keys() == set(CLASSES)

    (tmp_path / "new.pt").unlink()
    options["splits"] = "$dict.fromkeys(('train', 'validation'), cleft_bundle.data.make_splits(@items)['train'])"
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", "build_classifier.json"], "calibrating", **options)
    assert "trained on" in bundle_error(caught)
    assert "patient" in bundle_error(caught)
    assert not (tmp_path / "new.pt").exists()


def test_a_set_of_ones_own_has_the_classes_of_its_table_or_of_a_prompt_file(tmp_path):
    (tmp_path / "labels.csv").write_text("image,finding,patient_id\na.png,edema,1\nb.png,no finding,2\n")
    files = [str(ROOT / "configs" / name) for name in ("train.json", "data_folder.json", "build_classifier.json")]

    def classes(**values):
        parser = ConfigParser()
        parser.read_config(files)
        parser.update({"bundle_root": str(ROOT), "dataset_dir": str(tmp_path), **values})
        return parser.get_parsed_content("class_names")

    assert classes() == ["edema", "no finding"]
    assert "pneumonia" in classes(prompt_file=str(ROOT / "configs" / "prompts" / "rsna.json"))
