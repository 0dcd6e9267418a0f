"""Linear probe and fine-tuning on a checkpoint of contrastive pre-training."""

import json

import mlflow
import pytest
import torch

from cleft_bundle.checkpoints import load_finetuned
from cleft_bundle.data import fingerprint
from cleft_bundle.networks import ImageEncoder
from tests.configs.conftest import TINY, bundle_error
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SMALL = TINY | {"resamples": 20}
SOURCE_KEYS = ("method", "source", "fraction")


@pytest.fixture
def pretrained(run_config, few_phantoms):
    run_config(["train.json"], "training", dataset_dir=few_phantoms, tracking_uri="", **TINY)


def finetuned_pt(tmp_path, point):
    return tmp_path / "models" / "finetune" / f"{point}_seed0_subset0_split0" / "finetuned.pt"


def table(tmp_path):
    return json.loads((tmp_path / "eval" / "label_efficiency.json").read_text())


def test_both_methods_make_one_comparison(run_config, pretrained, few_phantoms, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    seen = []
    features = ImageEncoder.features
    monkeypatch.setattr(ImageEncoder, "features", lambda self, image: seen.append(len(image)) or features(self, image))
    fractions = [0.2, 1.0]
    probed = run_config(
        ["train.json", "linear_probe.json"], "probing", dataset_dir=few_phantoms, fractions=fractions, **SMALL
    )
    splits = probed.parser.get_parsed_content("splits")
    assert sum(seen) == 2 * sum(map(len, splits.values())), "each image goes once through each of two towers"
    stored = table(tmp_path)
    assert [tuple(point[key] for key in SOURCE_KEYS) for point in stored["points"]] == [
        ("linear probe", source, fraction) for source in ("cleft", "random") for fraction in fractions
    ]

    files = ["train.json", "finetune.json"]
    tuned = run_config(
        files, "training", dataset_dir=few_phantoms, source="random", train_fraction=0.2, **SMALL | {"epochs": 2}
    )
    assert tuned.parser.get_parsed_content("train#trainer").state.epoch == 2
    stored = table(tmp_path)
    assert len(stored["points"]) == 5
    again = run_config(
        files, "training", dataset_dir=few_phantoms, source="random", train_fraction=0.2, seed=1, **SMALL
    )
    first, second = (run.parser.get_parsed_content("splits") for run in (tuned, again))
    assert fingerprint(first) == fingerprint(second), "a seed moves no patient"
    point = next(row for row in table(tmp_path)["over_seeds"] if row["method"] == "fine-tuning")
    assert (point["seeds"], len(table(tmp_path)["points"])) == (2, 6), "a second seed replaces nothing"
    assert len(list((tmp_path / "models" / "finetune").glob("random_0.2_seed?_subset0_split0/finetuned.pt"))) == 2
    stored = table(tmp_path)
    point = stored["points"][0]
    assert tuple(point[key] for key in SOURCE_KEYS) == ("fine-tuning", "random", 0.2)
    assert point["train_images"] == stored["points"][2]["train_images"], "both methods take the same patients"

    network = load_finetuned(finetuned_pt(tmp_path, "random_0.2"))
    validation = tuned.parser.get_parsed_content("validate#dataset")
    with torch.no_grad():
        logits = network(torch.stack([item["image"] for item in validation]))
    details = tuned.evaluator.state.metric_details["auroc_macro"]["logits"]
    if tuned.evaluator.state.best_metric_epoch == 2:
        torch.testing.assert_close(logits, torch.tensor(details), atol=1e-5, rtol=0)
    before = ImageEncoder(network.image_encoder.settings["backbone"], seed=0)
    differ = [n for n, p in network.image_encoder.backbone.named_parameters()
              if not torch.equal(p, before.backbone.get_parameter(n))]  # fmt: skip
    assert any(name.startswith("embeddings") for name in differ), "the tower is trained in full"

    client = mlflow.MlflowClient(stored["tracking_uri"])
    experiment = client.get_experiment_by_name("cleft_bundle").experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{stored['parent_run']}'")
    estimates = {tuple(child.data.params[f"point_{key}"] for key in ("method", "source", "label_fraction", "seed")):
               child.data.metrics["validation_auroc_macro"] for child in children}  # fmt: skip
    assert estimates == {
        (*(str(point[key]) for key in SOURCE_KEYS), str(point["seeds"]["seed"])): pytest.approx(
            point["estimates"]["auroc_macro"]["value"]
        )
        for point in stored["points"]
    }
    assert {child.info.status for child in children} == {"FINISHED"}
    finetuned = next(child for child in children if child.data.params["point_method"] == "fine-tuning")
    assert "train_loss" in finetuned.data.metrics
    assert "label_efficiency.png" in {file.path for file in client.list_artifacts(stored["parent_run"])}


def test_finetuning_starts_from_the_checkpoint(run_config, pretrained, few_phantoms, tmp_path):
    started = run_config(
        ["train.json", "finetune.json"],
        "training",
        **SMALL | {"dataset_dir": few_phantoms, "tracking_uri": "", "learning_rate": 1e-30, "weight_decay": 0.0},
        backbone_learning_rate=0.0,
    )
    stage_one = torch.load(tmp_path / "models" / "cleft.pt", weights_only=True)["weights"]
    written = torch.load(finetuned_pt(tmp_path, "cleft_1.0"), weights_only=True)
    for name, tensor in stage_one.items():
        if name.startswith("image_encoder."):
            assert torch.equal(written["weights"][name], tensor), name
    patients = {item["patient_id"] for item in started.parser.get_parsed_content("splits")["train"]}
    validated = {item["patient_id"] for item in started.parser.get_parsed_content("splits")["validation"]}
    counts = written["trained_on"]["counts"]
    assert (counts["weights"], counts["epoch"], counts["prompts"]) == (len(patients), len(validated), 0)
    assert table(tmp_path)["points"][0]["settings"]["checkpoint"]


@pytest.mark.parametrize(("overlay", "run_id"), [("linear_probe.json", "probing"), ("finetune.json", "training")])
def test_a_missing_checkpoint_and_an_absent_class_are_one_line(overlay, run_id, run_config, few_phantoms, tmp_path):
    options = SMALL | {"dataset_dir": few_phantoms, "tracking_uri": ""}
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", overlay], run_id, **options)
    assert f"checkpoint {tmp_path / 'models' / 'cleft.pt'} does not exist" in bundle_error(caught)

    prompts = json.loads((ROOT / "configs" / "prompts" / "chexpert.json").read_text())
    prompts["classes"]["fracture"] = {}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    options |= {"prompt_file": str(tmp_path / "prompts.json"), "train_fraction": 0.5}
    options |= {"sources": ["random"], "fractions": [1.0]} if run_id == "probing" else {"source": "random"}
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", overlay], run_id, **options)
    assert "no positive image of fracture; take a larger fraction" in bundle_error(caught)
