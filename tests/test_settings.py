import json

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.settings import Settings, check_settings
from tests.conftest import ROOT

WRONG = {
    "epochs": ("ten", 0, 1.5, True, None),
    "val_interval": (0, -1),
    "batch_size": (0, 2.0, "8"),
    "chunk_size": (0, "4"),
    "device": ("cuda:99", "gpu", 0),
    "learning_rate": (0, -1e-3, float("nan"), float("inf")),
    "train_fraction": (0.0, 1.1),
    "test_fraction": (1.0, -0.1),
    "confidence": (0, 1),
    "seed": (-1, 2**32),
    "gather": ("yes", 1),
    "dataset_dir": (2024, ["a", "b"]),
    "target": (None, 5, ["density"]),
    "exclude": (5, [None], {"implant": True}),
    "image_types": (None, 5, [2]),
    "train#trainer#max_epochs": (0, "two"),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_line_that_names_the_key_and_what_is_expected(key, value):
    with pytest.raises(BundleError) as caught:
        check_settings({key: value})
    assert str(caught.value).startswith(f"{key}: expected ")
    assert str(caught.value).endswith(f", got {value!r}")
    assert "\n" not in str(caught.value)


def test_right_values_and_ids_of_no_setting_pass():
    check_settings({"epochs": 3, "learning_rate": 1, "chunk_size": None, "resume": "auto", "my_own": object()})


def test_rates_that_would_climb_to_the_end_are_refused():
    with pytest.raises(BundleError, match=r"final_learning_rate: expected at most learning_rate, 0\.1, got 0\.2"):
        check_settings({"learning_rate": 0.1, "final_learning_rate": 0.2})


def test_every_scalar_of_every_config_is_checked():
    missing = {}
    for file in sorted((ROOT / "configs").glob("*.json")):
        for key, value in json.loads(file.read_text()).items():
            is_literal = not isinstance(value, dict | list) and not str(value).startswith(("$", "@"))
            if is_literal and "#" not in key and file.name != "metadata.json":
                check_settings({key: value})
                if key not in Settings.model_fields:
                    missing[key] = file.name
    # backbones are texts or mappings, and are checked where they are loaded
    assert not missing.keys() - {"image_backbone", "text_backbone"}
