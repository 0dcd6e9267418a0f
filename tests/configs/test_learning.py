"""A small run learns from captions, and from nothing else."""

import json

import pytest

from cleft_bundle.data import phantoms

SIZE = {"epochs": 6, "val_interval": 6, "num_workers": 0, "warmup_steps": 10, "tracking_uri": "", "image_size": 56}
CLASSES = ("cardiomegaly", "pleural effusion", "no finding")  # those that are learnt first


@pytest.fixture(scope="module")
def phantom_set(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:  # workers of pytest keep the cores busy
        patched.setattr(phantoms.folder, "WORTH_A_POOL", 201)
        return phantoms.chest(str(tmp_path_factory.mktemp("learning")), patients=200, seed=1)


@pytest.fixture
def prompt_file(tmp_path):
    text = "this is a chest x ray of a patient with "
    content = {"caption": [text + "{findings}"], "classes": {name: [text + name] for name in CLASSES}}
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.slow
def test_shuffled_captions_teach_nothing(run_config, phantom_set, prompt_file):
    sizes = SIZE | {"dataset_dir": phantom_set, "prompt_file": prompt_file, "image_backbone#image_size": 56}
    true = run_config(["train.json"], "training", **sizes)
    imports = [*true.parser.get("imports"), "$from tests.configs.shuffled import shuffle_captions"]
    shuffled = run_config(
        ["train.json"],
        "training",
        **sizes,
        imports=imports,
        **{"train#dataset#data": "$shuffle_captions(@splits['train'])"},
    )
    auroc = [workflow.evaluator.state.metrics["zero_shot_auroc"] for workflow in (true, shuffled)]
    assert auroc[0] >= 0.8
    assert auroc[1] == pytest.approx(0.5, abs=0.1)
