"""A text tower that reads in both directions goes through every config that CLEFT's language model goes through."""

import pytest
import torch

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.losses import ContrastiveLoss
from tests.configs.conftest import TINY, bundle_error
from tests.networks.text.berts import write_bert

pytestmark = pytest.mark.slow
FILES = ["train.json", "net_bert.json"]


@pytest.fixture
def options(tmp_path, few_phantoms):
    bert = write_bert(tmp_path / "bert")
    return {"dataset_dir": few_phantoms, "text_backbone": bert, "tracking_uri": "", **TINY}


def weights(folder, name="cleft.pt"):
    return torch.load(folder / name, weights_only=True)["weights"]


@pytest.mark.parametrize("adapted", [{}, {"peft": "lora", "text_pooling": "cls"}], ids=["full", "lora"])
def test_training_evaluation_prompts_and_probe(adapted, options, run_config, tmp_path):
    options |= adapted
    trained = run_config(FILES, "training", **options)
    network = trained.parser.get_parsed_content("network")
    text = {"peft": "full", "text_pooling": "mean"} | adapted
    assert network.facts == text | {"image_peft": "full"}
    encoder = network.text_encoder
    expected = {f"text_encoder.{name}" for name, p in encoder.named_parameters() if p.requires_grad}
    stored = weights(tmp_path / "models")
    assert len([name for name in stored if name.startswith("text_encoder.")]) == len(expected)
    score = trained.evaluator.state.metrics["zero_shot_auroc"]
    evaluated = run_config([*FILES, "evaluate.json"], "evaluating", **options)
    assert evaluated.evaluator.state.metrics["zero_shot_auroc"] == pytest.approx(score, abs=1e-6)

    tuned = run_config(
        [*FILES, "prompt_tuning.json"], "training", **options | {"context_length": 12, "learning_rate": 0.05}
    )
    context = weights(tmp_path / "models", "cleft_prompt.pt")["prompt.context"]
    learner = tuned.parser.get_parsed_content("prompt")
    assert context.shape == (8, 12, 16)
    assert torch.equal(context, learner.context.detach().cpu())
    assert not torch.allclose(context[0], context[1])
    assert len(load_classifier(tmp_path / "models" / "model.pt").class_weights) == 8

    run_config([*FILES, "linear_probe.json"], "probing", **options | {"fractions": [1.0], "sources": ["cleft"]})
    assert (tmp_path / "eval" / "scores").is_dir()


def test_an_interrupted_run_ends_as_one_that_was_not(options, run_config, tmp_path, monkeypatch):
    options |= {"epochs": 2, "checkpoint_interval": 3}
    run_config(
        FILES, "training", **options | {"models_dir": str(tmp_path / "whole"), "output_dir": str(tmp_path / "w")}
    )
    forward, calls = ContrastiveLoss.forward, []

    def stop(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ContrastiveLoss, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            run_config(FILES, "training", **options)
    run_config(FILES, "training", **options | {"resume": True})
    found, whole = weights(tmp_path / "models"), weights(tmp_path / "whole")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_checkpoint_of_another_pooling_is_refused(options, run_config):
    run_config(FILES, "training", **options)
    with pytest.raises(RuntimeError) as caught:
        run_config([*FILES, "evaluate.json"], "evaluating", **options | {"text_pooling": "cls"})
    assert "trained with text_pooling mean, this network has cls" in bundle_error(caught)
