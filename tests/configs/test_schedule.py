"""The learning rate of the real configs, in updates of the trainer that they build."""

import pytest
from monai.bundle import ConfigParser

from tests.configs.conftest import TINY
from tests.conftest import ROOT


def parsed(names, data, **override):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in names])
    parser.update(TINY | {"bundle_root": str(ROOT), "dataset_dir": data, "cache_rate": 0.0} | override)
    return parser


@pytest.mark.parametrize(
    ("override", "per_epoch_of", "epochs"),
    [
        ({"epochs": 3}, 1, 3),
        ({"epochs": 3, "accumulation_steps": 4}, 4, 3),
        ({"epochs": 3, "train#trainer#max_epochs": 2}, 1, 2),
        ({"epochs": 3, "train#trainer#max_epochs": 2, "train#trainer#accumulation_steps": 4}, 4, 2),
    ],
)
@pytest.mark.parametrize("names", [["train.json"], ["train.json", "finetune.json"]], ids=["train", "finetune"])
def test_the_schedule_is_as_long_as_the_training(names, override, per_epoch_of, epochs, chest_phantoms):
    parser = parsed(names, chest_phantoms, **override)
    steps = len(parser.get_parsed_content("train#dataloader"))
    assert steps % 4, "the last group is to be a smaller one"
    updates = epochs * -(-steps // per_epoch_of)
    assert parser.get_parsed_content("lr_scheduler#updates") == updates
    if "finetune.json" in names:
        assert parser.get_parsed_content("warmup_steps") == updates // 10
