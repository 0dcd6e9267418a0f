"""Scoring, active learning and training over HTTP, against the real server."""

import json
import shutil
import time
import urllib.request

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.checkpoints import load_classifier, sha256
from cleft_bundle.data import phantoms
from cleft_bundle.metrics.active_learning import entropy
from tests.configs.conftest import TINY
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LABELLED = 60
PATIENCE = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a very small trained model, and one with its images; the classes of each image by its id."""
    folder = tmp_path_factory.mktemp("world")
    root = phantoms.chest(str(folder), patients=60, seed=0)
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "train.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        tracking_uri="",
        dataset_dir=root,
        output_dir=str(folder / "eval"),
        models_dir=str(folder / "models"),
        **TINY,
    )
    workflow.initialize()
    workflow.run()
    names = workflow.parser.get_parsed_content("class_names")
    (folder / "studies").mkdir()
    truth = {}
    items = [item for split in workflow.parser.get_parsed_content("splits").values() for item in split]
    for number, item in enumerate(sorted(items, key=lambda item: item["name"])):
        shutil.copy(item["image"], folder / "studies" / f"image{number:03d}.dcm")
        truth[f"image{number:03d}"] = [name for name, value in zip(names, item["label"], strict=True) if value == 1]
    return folder, truth


@pytest.fixture(scope="module")
def server(world, start):
    folder, _ = world
    values = {key: value for key, value in TINY.items() if key.startswith("image_")}
    conf = {"bundle": ROOT, "model": folder / "models" / "model.pt", "values": json.dumps(values)}
    with start(folder / "studies", folder, conf) as running:
        yield running


def wait(server, kind, task=None):
    """The task of this id, or the last one, once it has ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        status, tasks = server.get(f"/{kind}/?all=true")
        last = [one for one in tasks if task in (None, one["id"])][-1] if status == 200 else {}
        if last.get("status") in ("DONE", "ERROR", "STOPPED"):
            return last
        time.sleep(0.5)
    pytest.fail(f"{kind} does not end: {server.log.read_text()[-2000:]}")


def expected_order(folder, labelled):
    """Ids in the order of the entropy by the classifier as its file is now, and its digest."""
    model = ServedModel(folder / "models" / "model.pt", "cpu")
    files = sorted((folder / "studies").glob("*.dcm"))
    scores = entropy(model.score(files).probabilities.astype(float), model.classifier.task)
    order = sorted(zip(files, scores, strict=True), key=lambda pair: -pair[1])
    return [(file.stem, score) for file, score in order if file.stem not in labelled], model.digest


def ask(server, strategy="entropy", count=1):
    answers = [server.post(f"/activelearning/{strategy}") for _ in range(count)]
    assert {status for status, _ in answers} == {200}, answers
    return [answer for _, answer in answers]


def train(server, **request):
    status, task = server.post("/train/cleft_classifier", {"device": "cpu", "tracking": "None", **request})
    assert status == 200, task
    return wait(server, "train", task["id"])


def label(server, truth, count=LABELLED):
    for image in list(truth)[:count]:
        assert server.label(image, {"classification": truth[image]})[0] == 200


def test_labelling_and_training_from_end_to_end(server, world):
    folder, truth = world
    model_path = folder / "models" / "model.pt"
    first = sha256(model_path)
    assert set(server.get("/info/")[1]["strategies"]) == {"entropy", "margin", "coreset", "random"}

    status, refused = server.post("/train/cleft_classifier?run_sync=true", {"method": "magic"})
    assert (status, "method: expected one of linear, prompt, image_tower, got 'magic'" in str(refused)) == (400, True)
    few = train(server, method="linear")
    assert few["status"] == "ERROR"
    assert [line for line in few["details"] if line.startswith("error: 0 labelled images are too few: every class")]

    label(server, truth)
    if wait(server, "scoring")["status"] != "DONE":
        pytest.fail(str(server.get("/scoring/")))
    order, digest = expected_order(folder, list(truth)[:LABELLED])
    shown = ask(server, count=5)
    assert digest == first == shown[0]["model"]
    np.testing.assert_allclose([one["score"] for one in shown], [score for _, score in order[:5]], atol=1e-4)
    assert [one["id"] for one in shown] == [image for image, _ in order[:5]]

    request = {"method": "linear", "val_split": 0.3, "publish": "always", "run_id": ""}
    status, task = server.post("/train/cleft_classifier", request)
    assert status == 200
    while server.get("/train/?check_if_running=true")[0] != 200:
        time.sleep(0.05)
    assert server.post("/train/cleft_classifier", request)[0] == 429
    done = wait(server, "train", task["id"])
    assert done["status"] == "DONE", done["details"]
    assert len([line for line in server.log.read_text().splitlines() if "linear head: " in line]) == 1, "trained once"
    stats = server.get("/info/")[1]["train_stats"]["cleft_classifier"]
    assert stats["published"]
    assert stats["train_images"] + stats["validation_images"] == LABELLED
    assert 0 <= stats["before"]["auroc_macro"] <= 1
    assert stats["model"] == sha256(model_path) != first
    assert sha256(folder / "models" / "model_previous.pt") == first
    assert not (folder / "models" / "label_training" / "datalist.json").exists()
    assert (folder / "models" / "label_training" / "mlruns.db").stat().st_size

    after = load_classifier(model_path)
    status, answer = server.infer("image100")
    assert status == 200
    scores = {row["label"]: row["score"] for row in answer["params"]["prediction"]} if "params" in answer else {
        row["label"]: row["score"] for row in answer["prediction"]
    }  # fmt: skip
    direct = ServedModel(model_path, "cpu").score([folder / "studies" / "image100.dcm"]).probabilities[0]
    assert list(scores.values()) == pytest.approx([float(score) for score in direct], abs=1e-4)
    assert list(scores) == after.class_names

    deadline = time.monotonic() + PATIENCE
    while server.post("/activelearning/entropy")[0] != 200 and time.monotonic() < deadline:
        time.sleep(1)
    order, digest = expected_order(folder, list(truth)[:LABELLED])
    answer = ask(server)[0]
    assert answer["model"] == digest == stats["model"], "the scores are those of the new classifier"
    assert answer["score"] == pytest.approx(dict(order)[answer["id"]], abs=1e-4)


def test_killing_a_training_leaves_the_served_model(server, world):
    folder, truth = world
    label(server, truth)
    before = sha256(folder / "models" / "model.pt")
    status, task = server.post("/train/cleft_classifier", {"method": "image_tower", "max_epochs": 500})
    assert status == 200
    deadline = time.monotonic() + PATIENCE
    while "epoch 2/500" not in server.log.read_text():
        assert time.monotonic() < deadline, server.log.read_text()[-2000:]
        time.sleep(0.5)
    urllib.request.urlopen(urllib.request.Request(server.url + "/train/", method="DELETE"), timeout=60)  # noqa: S310
    assert wait(server, "train", task["id"])["status"] == "STOPPED"
    assert sha256(folder / "models" / "model.pt") == before
    status, answer = server.infer("image100")
    assert (status, bool(answer)) == (200, True)
    done = train(server, method="image_tower", max_epochs=1, publish="always", val_split=0.3)
    assert done["status"] == "DONE", done["details"]
    assert sha256(folder / "models" / "model.pt") != before
