"""The second stage on a checkpoint of the first."""

import shutil

import pytest
import torch

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.networks import ImageEncoder
from tests.configs.conftest import TINY, bundle_error, runner

pytestmark = pytest.mark.slow
STAGE_TWO = TINY | {"epochs": 2, "context_length": 12, "warmup_steps": 1}


@pytest.fixture(scope="module")
def first_stage(few_phantoms, tmp_path_factory):
    """The folder of a training, which each test copies."""
    folder = tmp_path_factory.mktemp("first")
    runner(folder)(["train.json"], "training", dataset_dir=few_phantoms, tracking_uri="", **TINY)
    return folder


@pytest.fixture
def stage_one(first_stage, tmp_path):
    shutil.copytree(first_stage, tmp_path, dirs_exist_ok=True)
    return torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["weights"]


@pytest.mark.parametrize(
    "variant",
    [{}, {"context": "shared"}, {"objective": "contrastive"}, {"context_words": "x ray of", "positives": "labels"}],
    ids=lambda v: "-".join(map(str, v.values())) or "default",
)
def test_only_the_context_learns_and_vision_runs_once(
    variant, run_config, stage_one, few_phantoms, tmp_path, monkeypatch
):
    seen = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda self, image: seen.append(len(image)) or forward(self, image))
    files = ["train.json", "prompt_tuning.json"]
    tuned = run_config(files, "training", dataset_dir=few_phantoms, **STAGE_TWO | variant)
    images = len(tuned.train_dataset_data) + len(tuned.val_dataset_data)
    assert sum(seen) == images, "each image goes through the frozen tower once"
    weights = torch.load(tmp_path / "models" / "cleft_prompt.pt", weights_only=True)["weights"]
    learnt = weights.pop("prompt.context")
    assert learnt.shape == ((12, 512) if "context" in variant or "objective" in variant else (8, 12, 512))
    assert weights.keys() == stage_one.keys()
    assert all(torch.equal(weights[name], stage_one[name]) for name in weights)
    start = tuned.parser.get_parsed_content("prompt")
    assert start.context is tuned.parser.get_parsed_content("network").prompt.context

    classifier = load_classifier(tmp_path / "models" / "model.pt")
    files = ["train.json", "prompt_tuning.json", "evaluate.json"]
    evaluated = run_config(files, "evaluating", dataset_dir=few_phantoms, **STAGE_TWO | variant)
    assert evaluated.evaluator.state.metrics == pytest.approx(tuned.evaluator.state.metrics, abs=1e-6)
    item = tuned.parser.get_parsed_content("validate#dataset")[0]
    with torch.no_grad():
        logits = classifier.logit_scale.exp() * item["image"][None] @ classifier.class_weights.T
    details = evaluated.evaluator.state.metric_details["zero_shot_auroc"]["logits"]
    torch.testing.assert_close(logits[0], torch.from_numpy(details[0]), atol=1e-4, rtol=0)


def test_a_prompt_longer_than_the_window_is_refused(run_config, stage_one, few_phantoms):
    with pytest.raises(RuntimeError) as caught:
        run_config(
            ["train.json", "prompt_tuning.json"],
            "training",
            dataset_dir=few_phantoms,
            **STAGE_TWO | {"context_length": 200},
        )
    assert "prompt length: expected 1 to 126" in bundle_error(caught)


def test_chunks_of_class_prompts_are_refused_by_name(run_config, stage_one, few_phantoms):
    with pytest.raises(RuntimeError) as caught:
        run_config(
            ["train.json", "prompt_tuning.json"],
            "training",
            dataset_dir=few_phantoms,
            **STAGE_TWO | {"chunk_size": 4},
        )
    assert bundle_error(caught).startswith("chunk_size: ClassPromptInferer takes whole batches")
