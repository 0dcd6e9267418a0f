"""What each seed of the configs decides on, and what it leaves alone."""

import pytest
from monai.bundle import ConfigParser

from cleft_bundle.data import fingerprint, make_splits
from tests.conftest import ROOT

OVERLAYS = {
    "train": [],
    "prompt tuning": ["prompt_tuning.json"],
    "fine-tuning": ["finetune.json"],
    "probe": ["linear_probe.json"],
    "evaluation": ["evaluate.json"],
    "classifier": ["build_classifier.json"],
}


def parsed(overlays, chest_phantoms, *, ids, **seeds):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ["train.json", *overlays]])
    values = {"bundle_root": str(ROOT), "dataset_dir": chest_phantoms, "train_fraction": 0.4, "test_fraction": 0.5}
    parser.update(values | seeds)
    return [parser.get_parsed_content(name) for name in ids]


@pytest.mark.parametrize("overlays", OVERLAYS.values(), ids=OVERLAYS)
def test_the_seed_of_a_run_is_in_no_split_and_no_subset(overlays, chest_phantoms):
    (first, items), (second, _) = (parsed(overlays, chest_phantoms, ids=["splits", "items"], seed=s) for s in (0, 7))
    assert fingerprint(first) == fingerprint(second)
    former = make_splits(items, seed=0, train_fraction=0.4, test_fraction=0.5)
    assert fingerprint(first) == fingerprint(former), "the defaults divide as seed 0 did"


def test_split_and_subset_have_seeds_of_their_own(chest_phantoms):
    ((first,), (subset,), (split,)) = (
        parsed([], chest_phantoms, ids=["splits"], **seeds) for seeds in ({}, {"subset_seed": 1}, {"split_seed": 1})
    )
    names = [
        {part: {item["name"] for item in items} for part, items in divided.items()}
        for divided in (first, subset, split)
    ]
    assert names[0]["validation"] == names[1]["validation"] != names[2]["validation"]
    assert names[0]["test"] == names[1]["test"] != names[2]["test"]
    assert names[0]["train"] != names[1]["train"]


@pytest.mark.parametrize("overlay", ["train.json", "data_phantom_breast.json"])
def test_phantoms_are_drawn_by_a_seed_of_their_own(overlay):
    config = ConfigParser.load_config_files([str(ROOT / "configs" / name) for name in ("train.json", overlay)])
    assert "seed=@phantom_seed" in config["dataset_dir"]


def test_every_run_of_a_grid_has_its_own_folder(chest_phantoms):
    ids = ["trained_path", "best_checkpoint", "training_checkpoint"]
    grid = [{"source": source, "train_fraction": share, "seed": seed} for source in ("cleft", "random")
            for share in (0.1, 1.0) for seed in (0, 1)]  # fmt: skip
    files = [path for cell in grid for path in parsed(["finetune.json"], chest_phantoms, ids=ids, **cell)]
    assert len(set(files)) == len(files) == 24
