"""Dual encoders of others: trained, and what follows a training, by the configs that CLEFT is trained with."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from cleft_bundle.checkpoints import load_classifier, load_finetuned, open_classifier
from cleft_bundle.engines.training_step import TrainingStep
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer
from cleft_bundle.networks.heat_maps import heat_map
from cleft_bundle.packaging.export import export_classifier
from cleft_bundle.transforms import backbone_statistics
from tests.configs.conftest import bundle_error
from tests.conftest import ROOT, save_dual_encoder

pytestmark = pytest.mark.slow
OVERLAY = "net_dual_encoder.json"
TINY = {"epochs": 2, "val_interval": 1, "batch_size": 8, "num_workers": 0, "warmup_steps": 1, "tracking_uri": ""}


def run(folder, names, run_id, **override):
    """Run config files of the bundle; outputs go to ``folder``."""
    override = {"output_dir": str(folder / "eval"), "models_dir": str(folder / "models")} | override
    workflow = ConfigWorkflow(
        [str(ROOT / "configs" / name) for name in names],
        logging_file=False,
        workflow_type="train",
        run_id=run_id,
        **override,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2"])
def trained(request, tmp_path_factory, chest_phantoms):
    """The folder of one training of a family, and the overrides that it was run with."""
    folder = tmp_path_factory.mktemp(request.param)
    source = save_dual_encoder(folder / "model", request.param)
    options = TINY | {"dual_encoder": source, "dataset_dir": chest_phantoms, "image_peft": "lora"}
    run(folder, ["train.json", OVERLAY], "training", **options)
    return folder, options


@pytest.fixture
def elsewhere(trained, tmp_path):
    """The same, for a run that writes into a folder of its own and reads the models of the training."""
    folder, options = trained
    return folder, options | {"output_dir": str(tmp_path / "eval")}, tmp_path


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def logits_of(evaluated):
    return evaluated.evaluator.state.metric_details["zero_shot_auroc"]["logits"]


def test_the_checkpoint_holds_what_was_trained_and_names_the_rest(trained):
    folder, options = trained
    state = torch.load(folder / "models" / "cleft.pt", weights_only=True)
    projections = {name for name in state["weights"] if "projection" in name}
    scales = {"logit_scale", "logit_bias"}
    assert all("lora_" in name for name in state["weights"].keys() - projections - scales)
    assert len(projections) == (2 if options["dual_encoder"].endswith("model") and "clip" in folder.name else 0)
    for part in ("image_backbone", "text_backbone"):
        assert state[part]["source"] == "model"
        assert len(state[part]["fingerprint"]) == 64
    network = DualEncoder(options["dual_encoder"])
    assert any(
        not torch.equal(v, dict(network.named_parameters())[k]) for k, v in state["weights"].items() if k in scales
    )


def test_the_trained_network_is_evaluated_and_is_what_the_classifier_serves(elsewhere):
    folder, options, _ = elsewhere
    evaluated = run(folder, ["train.json", OVERLAY, "evaluate.json"], "evaluating", **options)
    classifier = load_classifier(folder / "models" / "model.pt")
    images = torch.stack(
        [torch.as_tensor(row["image"]) for row in evaluated.parser.get_parsed_content("validate#dataset")]
    )
    with torch.no_grad():
        logits = classifier.raw_logits(classifier.embed(images))
    torch.testing.assert_close(logits.numpy(), logits_of(evaluated), atol=1e-3, rtol=1e-4)
    assert str(folder) not in json.dumps(classifier.settings), "a model tells nobody where it was made"


def test_after_evaluate_the_model_is_scored_as_it_is(elsewhere):
    folder, options, _ = elsewhere
    files = ["train.json", "evaluate.json", OVERLAY]
    untouched = logits_of(run(folder, files, "evaluating", **options))
    trained = logits_of(run(folder, files, "evaluating", checkpoint=str(folder / "models/cleft.pt"), **options))
    assert untouched.shape == trained.shape
    assert np.abs(untouched - trained).max() > 1e-4


def test_it_does_not_load_on_another_model(elsewhere):
    folder, options, tmp_path = elsewhere
    other = DualEncoder(options["dual_encoder"], peft="none", image_peft="none")
    with torch.no_grad():
        next(other.text_encoder.backbone.parameters()).add_(0.1)
    other.library_model().save_pretrained(tmp_path / "other")
    options = options | {"dual_encoder": str(tmp_path / "other"), "tokenizer_source": options["dual_encoder"]}
    with pytest.raises(RuntimeError) as caught:
        run(folder, ["train.json", OVERLAY, "evaluate.json"], "evaluating", **options)
    assert "was trained on the language model model (fingerprint" in bundle_error(caught)


def test_it_is_exported_as_a_model_of_its_family(elsewhere):
    folder, options, tmp_path = elsewhere
    files = ["train.json", OVERLAY, "export_dual_encoder.json"]
    exported = run(folder, files, "run", dual_encoder_path=str(tmp_path / "hub"), **options)
    network = exported.parser.get_parsed_content("network").eval()
    again = DualEncoder(str(tmp_path / "hub")).eval()
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    tokens = DualEncoderTokenizer(str(tmp_path / "hub"), again)(["edema", "no finding"])
    with torch.no_grad():
        torch.testing.assert_close(again.encode_image(images), network.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(again.encode_text(**tokens), network.encode_text(**tokens), atol=1e-5, rtol=0)
    assert backbone_statistics(str(tmp_path / "hub")) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def test_a_prompt_is_learnt_and_served(elsewhere):
    folder, options, tmp_path = elsewhere
    models = tmp_path / "models"
    options |= {"models_dir": str(models), "pretrained": str(folder / "models/cleft.pt"), "context_length": 6}
    tuned = run(folder, ["train.json", OVERLAY, "prompt_tuning.json"], "training", **options)
    learnt = weights(models / "cleft_prompt.pt")
    context = learnt.pop("prompt.context")
    assert context.shape == (len(tuned.parser.get_parsed_content("class_names")), 6, 16)
    before = weights(folder / "models/cleft.pt")
    assert learnt.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in learnt.items())
    assert load_classifier(models / "model.pt").class_weights.shape[1] == 16


def test_probe_and_finetuning_start_from_the_trained_tower(elsewhere):
    folder, options, tmp_path = elsewhere
    grid = {"fractions": [1.0], "strengths": [0.01, 1.0], "resamples": 20}
    run(folder, ["train.json", OVERLAY, "linear_probe.json"], "probing", **options | grid)
    short = {"min_epochs": 1, "min_steps": 1, "resamples": 20, "models_dir": str(tmp_path / "models")}
    short |= {"checkpoint": str(folder / "models/cleft.pt")}
    options = {key: value for key, value in options.items() if key not in ("epochs", "val_interval", "warmup_steps")}
    run(folder, ["train.json", OVERLAY, "finetune.json"], "run", **options | short)
    (path,) = (tmp_path / "models").rglob("finetuned.pt")
    classifier = load_finetuned(path)
    assert not any("lora_" in name for name in classifier.state_dict())
    assert classifier(torch.randn(2, 3, 28, 28)).shape == (2, len(classifier.class_names))


def test_a_classifier_is_built_calibrated_exported_and_used(elsewhere):
    folder, options, tmp_path = elsewhere
    built = tmp_path / "model.pt"
    files = ["train.json", OVERLAY, "build_classifier.json"]
    run(folder, files, "calibrating", model_path=str(built), **options)
    classifier = load_classifier(built)
    assert classifier.calibration is not None
    images = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier(images)
        one_by_one = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(one_by_one, expected, atol=1e-6, rtol=0)
    for path in export_classifier(classifier, tmp_path / "exported", ["torchscript", "torch_export"]):
        torch.testing.assert_close(open_classifier(path)(images), expected, atol=1e-5, rtol=0)
    direction = classifier.class_weights
    for method in ("attention", "occlusion"):
        assert heat_map(classifier, images[:1], direction, method).shape == (1, len(direction), 2, 2)
    with pytest.raises(BundleError, match="does not say how it pools"):
        heat_map(classifier, images[:1], direction, "similarity")
    inferred = ConfigWorkflow(
        str(ROOT / "configs/inference.json"), logging_file=False, workflow_type="infer", model_path=str(built),
        dataset_dir=options["dataset_dir"], output_dir=str(tmp_path / "out"), num_workers=0,
    )  # fmt: skip
    inferred.initialize()
    inferred.run()
    inferred.finalize()
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert len(lines) > 10


def test_chunks_do_not_change_a_step(trained):
    folder, options = trained
    found = []
    for number, chunk in enumerate((None, 3)):
        own = folder / f"chunks{number}"
        adapters = {"_target_": "peft.LoraConfig", "r": 8, "lora_alpha": 32, "lora_dropout": 0.0}
        short = {"epochs": 1, "chunk_size": chunk, "peft": adapters, "image_peft": adapters}
        run(own, ["train.json", OVERLAY], "training", **options | short)
        found.append(weights(own / "models/cleft.pt"))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-5, rtol=0)


def test_an_interrupted_training_goes_on(trained, monkeypatch):
    folder, options = trained
    own = folder / "stopped"
    options = options | {"checkpoint_interval": 2}
    step, calls = TrainingStep.__call__, iter(range(9))
    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", lambda *args: next(calls) + 1 and step(*args))
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever ignite and MONAI make of it
            run(own, ["train.json", OVERLAY], "training", **options)
    assert not (own / "models/cleft.pt").exists()
    run(own, ["train.json", OVERLAY], "training", **options | {"resume": True})
    whole = weights(folder / "models/cleft.pt")
    for name, value in weights(own / "models/cleft.pt").items():
        torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=0)
