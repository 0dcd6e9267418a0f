import pytest

from cleft_bundle.engines import tuning_context, tuning_items, tuning_prompts
from cleft_bundle.errors import BundleError

NAMES = ["edema", "no finding"]
PROMPTS = {"edema": ["signs of edema", "edema"], "no finding": ["clear lungs"]}
ITEMS = [{"label": [1.0, 0.0]}, {"label": [0.0, 0.0]}]


def test_to_classify_each_class_learns_before_its_bare_name_on_usable_labels():
    assert tuning_context("classification") == "per_class"
    assert tuning_prompts("classification", NAMES, PROMPTS) == {"edema": ["edema"], "no finding": ["no finding"]}
    assert tuning_items("classification", ITEMS, "multiclass") == ITEMS[:1]


def test_to_contrast_one_context_learns_on_all_images_and_the_prompt_file_speaks():
    assert tuning_context("contrastive") == "shared"
    assert tuning_prompts("contrastive", NAMES, PROMPTS) == PROMPTS
    assert tuning_items("contrastive", ITEMS, "multiclass") == ITEMS


def test_another_objective_is_one_line():
    with pytest.raises(BundleError, match="objective: expected one of classification, contrastive, got 'contrast'"):
        tuning_context("contrast")
