import json
import shutil

import mlflow
import pytest
import torch
from monai.bundle import ConfigParser

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.data import RadiographReader
from cleft_bundle.transforms import build_transforms
from tests.configs.conftest import TINY, bundle_error, runner
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def checkout():
    """What stands in the checkout, but for what tools keep in hidden folders."""
    return {path for path in ROOT.rglob("*") if not any(p[0] in "._" for p in path.relative_to(ROOT).parts)}


def test_train_evaluate_and_infer_on_chest_phantoms(run_config, chest_phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = checkout()
    trained = run_config(["train.json"], "training", dataset_dir=chest_phantoms, **TINY)
    for name in ("models/cleft.pt", "models/model.pt", "eval/loss_curve.png", "eval/roc_curves.png"):
        assert (tmp_path / name).stat().st_size > 0, name
    at_training = dict(trained.evaluator.state.metrics)

    evaluated = run_config(["train.json", "evaluate.json"], "evaluating", dataset_dir=chest_phantoms, **TINY)
    assert evaluated.evaluator.state.metrics == pytest.approx(at_training, abs=1e-6)

    images = f"{chest_phantoms}/CheXpert-phantom/valid"
    inferred = run_config(["inference.json"], dataset_dir=images, model_path=str(tmp_path / "models" / "model.pt"))
    rows = json.loads((tmp_path / "eval" / "predictions.json").read_text())["predictions"]
    scores = {row["image"]: row for row in rows}
    classifier = load_classifier(tmp_path / "models" / "model.pt")
    logits = torch.from_numpy(evaluated.evaluator.state.metric_details["zero_shot_auroc"]["logits"])
    calibrated = (logits / classifier.temperature + classifier.bias).sigmoid()
    assert classifier.operating_point["rule"] == "sensitivity"
    names = evaluated.parser.get_parsed_content("class_names")
    for item, expected in zip(evaluated.val_dataset_data, calibrated, strict=True):
        row = scores[item["name"].split("valid/", 1)[1]]
        assert [row[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)

    for workflow in (trained, evaluated, inferred):
        assert workflow.check_properties() == []

    after = checkout()
    assert after == before, "a run with folders of its own must leave the checkout alone"
    assert {path.name for path in tmp_path.iterdir()} == {"models", "eval"}


def test_mlflow_holds_the_run(run_config, chest_phantoms, tmp_path):
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, **TINY | {"epochs": 2})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/eval/mlruns.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cleft_bundle").experiment_id])
    assert run.info.status == "FINISHED"
    assert {"epochs": "2", "positives": "caption", "max_epochs": "2"}.items() <= run.data.params.items()
    assert len(run.data.params["dataset_fingerprint"]) == 64
    assert int(run.data.params["trainable_parameters"]) < int(run.data.params["total_parameters"])
    assert "version_torch" in run.data.params
    assert [m.step for m in client.get_metric_history(run.info.run_id, "zero_shot_auroc")][:2] == [1, 2]
    assert {"train_loss", "logit_scale", "image_to_text_recall_at_1", "best_zero_shot_auroc"} <= set(run.data.metrics)
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert artifacts >= {"config.json", "loss_curve.png", "roc_curves.png", "confusion_matrix.png"}
    config = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.json"))
    assert config["epochs"] == 2


def test_tracking_can_be_switched_off_and_a_run_shorter_than_the_interval_still_validates(
    run_config, chest_phantoms, tmp_path
):
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY | {"val_interval": 3})
    assert not (tmp_path / "eval" / "mlruns.db").exists()
    assert (tmp_path / "models" / "model.pt").is_file()


def weights_in(folder):
    return torch.load(folder / "models" / "cleft.pt", weights_only=True)["weights"]


@pytest.fixture(scope="module")
def plain(chest_phantoms, tmp_path_factory):
    """The folder of a training that nothing else writes into."""
    folder = tmp_path_factory.mktemp("plain")
    runner(folder)(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    return folder


@pytest.mark.parametrize("cache", ["files", "store"])
def test_a_second_run_trains_on_the_cache_of_the_first(cache, run_config, chest_phantoms, plain, tmp_path, monkeypatch):
    cached = TINY | {"dataset_dir": chest_phantoms, "cache_dir": str(tmp_path / "cache"), "tracking_uri": ""}
    run_config(["train.json"], "training", cache=cache, **cached)
    first = weights_in(tmp_path)
    monkeypatch.setattr(RadiographReader, "get_data", lambda *_: pytest.fail("an image was read again"))
    workflow = run_config(["train.json"], "training", cache=cache, **cached)
    assert workflow.check_properties() == []
    second = weights_in(tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in second)
    exact = weights_in(plain)
    most = 0.0 if cache == "files" else 1e-3  # a store keeps the phantoms' values in 16 bits
    for name, value in first.items():
        torch.testing.assert_close(value, exact[name], atol=most, rtol=0)


def test_train_on_breast_phantoms(run_config, breast_phantoms, tmp_path):
    run_config(["train.json", "data_phantom_breast.json"], "training", dataset_dir=breast_phantoms, **TINY)
    classifier = load_classifier(tmp_path / "models" / "model.pt")
    assert len(classifier.class_names) == 4
    assert classifier.task == "multiclass"


def test_the_sigmoid_loss_learns_its_bias(run_config, chest_phantoms, tmp_path):
    run_config(["train.json", "loss_sigmoid.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    assert weights_in(tmp_path)["logit_bias"] != -10.0


def test_two_runs_are_equal_bit_for_bit(run_config, chest_phantoms, plain, tmp_path):
    run_config(["train.json"], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    first, second = weights_in(plain), weights_in(tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"dataset_dir": "/nowhere"}, "/nowhere"),
        ({"image_backbone": "/weights/none"}, "image_backbone: the folder '/weights/none' does not exist"),
        ({"text_backbone": "./none/x"}, "text_backbone: the folder './none/x' does not exist"),
        ({"tokenizer_source": "/weights/none"}, "tokenizer: the folder '/weights/none' does not exist"),
        ({"positives": "all"}, "positives: expected one of caption, index"),
        ({"batch_size": 1}, "batch_size: ContrastiveLoss needs at least 2 images a batch, got 1"),
        ({"peft": "qlora"}, "peft: expected one of lora"),
        ({"peft#target_modules": ["q_proj"]}, "lora: target_modules q_proj match no layer; the linear layers are"),
        ({"prompt_file": "/none.json"}, "/none.json"),
    ],
)
def test_bad_input_stops_before_anything_is_written(override, message, run_config, chest_phantoms, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json"], "training", **({"dataset_dir": chest_phantoms} | TINY | override))
    assert message in bundle_error(caught)
    assert not (tmp_path / "models").exists()


def test_a_checkpoint_of_another_backbone_is_refused(run_config, chest_phantoms, plain, tmp_path):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    kept = (tmp_path / "models" / "cleft.pt").read_bytes()
    override = TINY | {"text_backbone#n_head": 2, "text_backbone#n_layer": 2}
    with pytest.raises(RuntimeError) as caught:
        run_config(["train.json", "evaluate.json"], "evaluating", dataset_dir=chest_phantoms, **override)
    assert "was trained on the language model" in bundle_error(caught)
    assert (tmp_path / "models" / "cleft.pt").read_bytes() == kept


@pytest.mark.parametrize("overlay", ["transforms_chest.json", "transforms_mammography.json"])
def test_inference_prepares_images_as_the_training_did(overlay, run_config, chest_phantoms, tmp_path):
    """The classifier carries the transforms of its overlay: nobody has to name it again."""
    trained = run_config(["train.json", overlay], "training", dataset_dir=chest_phantoms, tracking_uri="", **TINY)
    classifier = load_classifier(tmp_path / "models" / "model.pt")
    item = trained.parser.get_parsed_content("splits")["validation"][0]
    prepared = build_transforms(classifier.preprocessing["transforms"])({"image": item["image"]})["image"]
    torch.testing.assert_close(prepared, trained.parser.get_parsed_content("validate#dataset")[0]["image"])
    inference = ConfigParser.load_config_file(ROOT / "configs" / "inference.json")
    assert "build_transforms(@network_def.preprocessing['transforms'])" in inference["preprocessing"]


def test_the_two_metadata_files_are_equal(root):
    assert (root / "metadata.json").read_bytes() == (root / "configs" / "metadata.json").read_bytes()
