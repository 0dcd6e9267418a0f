"""Dual encoders of others: what a training of one leaves, and how it goes on; all configs are in another file."""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.checkpoints import load_classifier, open_classifier
from cleft_bundle.errors import BundleError
from cleft_bundle.inference.scorer import Scorer
from cleft_bundle.networks import DualEncoder
from cleft_bundle.networks.heat_maps import heat_map
from cleft_bundle.packaging.export import export_classifier
from tests.configs.conftest import bundle_error
from tests.configs.dual_encoders import BASE, run, stopped, weights

pytestmark = pytest.mark.slow
FAMILIES = ["clip", "siglip", "siglip2"]
FEW = {"resamples": 20, "report_cases": 0, "shift_images": 8}


@pytest.fixture(params=FAMILIES)
def trained(request, dual_training):
    """The folder of one training of a family, and the overrides that it was run with."""
    return dual_training(request.param)


def into(folder, options, **override):
    return options | {"output_dir": str(folder / "eval"), "models_dir": str(folder / "models")} | override


def logits_of(evaluated):
    return evaluated.evaluator.state.metric_details["zero_shot_auroc"]["logits"]


def test_the_checkpoint_holds_what_was_trained_and_names_the_rest(trained):
    folder, options = trained
    state = torch.load(folder / "models" / "cleft.pt", weights_only=True)
    projections = {name for name in state["weights"] if "projection" in name}
    scales = {"logit_scale", "logit_bias"}
    assert all("lora_" in name for name in state["weights"].keys() - projections - scales)
    network = DualEncoder(options["dual_encoder"])
    assert len(projections) == (2 if network.config.model_type == "clip" else 0)
    for part in ("image_backbone", "text_backbone"):
        assert state[part]["source"] == "model"
        assert len(state[part]["fingerprint"]) == 64
    start = dict(network.named_parameters())
    assert any(not torch.equal(value, start[name]) for name, value in state["weights"].items() if name in scales)


@pytest.fixture(scope="module")
def evaluation(dual_training, tmp_path_factory):
    """Evaluate the training of a family, once."""

    @functools.cache
    def evaluate(family):
        folder, options = dual_training(family)
        given = into(tmp_path_factory.mktemp(family), options, checkpoint=str(folder / "models/cleft.pt"), **FEW)
        return run([*BASE, "evaluate.json"], "evaluating", **given)

    return evaluate


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trained_network_is_evaluated_and_is_what_the_classifier_serves(family, dual_training, evaluation):
    folder, _ = dual_training(family)
    evaluated = evaluation(family)
    classifier = load_classifier(folder / "models" / "model.pt")
    rows = evaluated.parser.get_parsed_content("validate#dataset")
    images = torch.stack([torch.as_tensor(row["image"]) for row in rows])
    with torch.no_grad():
        logits = classifier.raw_logits(classifier.embed(images))
    torch.testing.assert_close(logits.numpy(), logits_of(evaluated), atol=1e-3, rtol=1e-4)
    assert str(folder) not in json.dumps(classifier.settings), "a model tells nobody where it was made"


def test_behind_the_evaluation_the_model_is_scored_as_it_is(dual_training, evaluation, tmp_path):
    """Whatever its family: that is a matter of the order of the files."""
    _, options = dual_training("siglip")
    files = ["train.json", "evaluate.json", BASE[1]]
    untouched = logits_of(run(files, "evaluating", **into(tmp_path, options, **FEW)))
    assert np.abs(untouched - logits_of(evaluation("siglip"))).max() > 1e-4


def test_it_does_not_load_on_another_model(trained, tmp_path):
    folder, options = trained
    other = DualEncoder(options["dual_encoder"], peft="none", image_peft="none")
    with torch.no_grad():
        next(other.text_encoder.backbone.parameters()).add_(0.1)
    other.library_model().save_pretrained(tmp_path / "other")
    given = into(tmp_path, options, dual_encoder=str(tmp_path / "other"), tokenizer_source=options["dual_encoder"])
    with pytest.raises(RuntimeError) as caught:
        run([*BASE, "evaluate.json"], "evaluating", **given, checkpoint=str(folder / "models/cleft.pt"))
    assert "was trained on the language model model (fingerprint" in bundle_error(caught)


def test_the_classifier_is_exported_explained_and_served(trained, tmp_path):
    folder, _ = trained
    path = folder / "models" / "model.pt"
    classifier = load_classifier(path)
    assert classifier.calibration is not None
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier(images)
        one_by_one = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(one_by_one, expected, atol=1e-6, rtol=0)
    for exported in export_classifier(classifier, tmp_path / "exported", ["torchscript", "torch_export"]):
        torch.testing.assert_close(open_classifier(exported)(images), expected, atol=1e-5, rtol=0)
    direction = classifier.class_weights
    for method in ("attention", "occlusion"):
        maps = heat_map(classifier, images[:1], direction, method)
        assert maps.shape == (1, len(direction), 2, 2)
        assert bool(maps.any())
    with pytest.raises(BundleError, match="does not say how it pools"):
        heat_map(classifier, images[:1], direction, "similarity")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 30), np.uint8)).save(file)
    served, scored = ServedModel(path, "cpu").score(files), Scorer(path).score([{"image": file} for file in files])
    np.testing.assert_allclose(served.probabilities, scored.scores, atol=1e-6)
    assert served.embeddings.shape == (3, 16)
    assert len({tuple(row) for row in scored.scores}) == 3


def test_chunks_do_not_change_a_step(trained, tmp_path):
    _, options = trained
    adapters = {"_target_": "peft.LoraConfig", "r": 8, "lora_alpha": 32, "lora_dropout": 0.0}
    found = []
    for number, chunk in enumerate((None, 3)):
        own = tmp_path / str(number)
        run(BASE, "training", **into(own, options, chunk_size=chunk, peft=adapters, image_peft=adapters))
        found.append(weights(own / "models/cleft.pt"))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-5, rtol=0)


def test_an_interrupted_training_ends_as_one_that_was_not(trained, tmp_path, monkeypatch):
    folder, options = trained
    again = into(tmp_path, options, checkpoint_interval=2)
    stopped(monkeypatch, 7, BASE, **again)
    assert not (tmp_path / "models/cleft.pt").exists()
    run(BASE, "training", **again, resume=True)
    whole, resumed = weights(folder / "models/cleft.pt"), weights(tmp_path / "models/cleft.pt")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_ranks_of_both_towers_go_on_where_they_were(dual_training, tmp_path, monkeypatch):
    _, options = dual_training("siglip2")
    options = options | {"peft": "adalora", "image_peft": "adalora", "epochs": 2, "checkpoint_interval": 2}
    run(BASE, "training", **into(tmp_path / "whole", options))
    stopped(monkeypatch, 9, BASE, **into(tmp_path / "broken", options))
    run(BASE, "training", **into(tmp_path / "broken", options, resume=True))
    whole, resumed = (weights(tmp_path / name / "models/cleft.pt") for name in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    for tower in ("image_encoder", "text_encoder"):
        values = [value for name, value in whole.items() if name.startswith(tower) and ".lora_E." in name]
        assert values
        assert sum(int((value != 0).sum()) for value in values) < 12 * len(values), "ranks have been given up"
