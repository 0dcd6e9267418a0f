"""Dual encoders of others, evaluated by the same config."""

import pytest

from tests.configs.conftest import TINY
from tests.conftest import ROOT, tiny_dual_encoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_a_peer_is_evaluated_on_the_same_images_and_prompts(model_type, run_config, chest_phantoms, tmp_path):
    peer = {"dual_encoder": tiny_dual_encoder(model_type), "tokenizer_source": str(ROOT / "configs" / "tokenizer_tiny")}
    files = ["train.json", "evaluate.json", "net_dual_encoder.json"]
    data = {key: value for key, value in TINY.items() if not key.startswith("image_")}
    evaluated = run_config(files, "evaluating", dataset_dir=chest_phantoms, **data, **peer)
    scores = evaluated.evaluator.state.metric_details["zero_shot_auroc"]["scores"]
    assert scores.shape[0] == len(evaluated.val_dataset_data)
    assert 0 <= evaluated.evaluator.state.metrics["zero_shot_auroc"] <= 1
    assert evaluated.parser.get_parsed_content("validate#dataset")[0]["image"].shape == (3, 28, 28)
    assert not (tmp_path / "models").exists()
