"""Labels, training and active learning over HTTP, against the real server, on real radiographs."""

import csv
import json
import os
import shutil
import signal
import time

import numpy as np
import psutil
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.checkpoints import save, sha256
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from tests.apps.monai_label.conftest import require_label_venv
from tests.conftest import ROOT, TINY_VIT

require_label_venv()

pytestmark = [pytest.mark.slow, pytest.mark.shared_data]

CLASSES = ["no finding", "bacterial pneumonia", "viral pneumonia"]
LABELLED = 30
SIDE = 112
TRANSFORMS = [
    {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
    {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
    {"_target_": "Resized", "keys": "image", "spatial_size": [SIDE, SIDE], "mode": "area"},
    {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25},
    {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
    {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
]


def write_classifier(path):
    """A classifier that has learnt nothing: random features, random classes."""
    torch.manual_seed(0)
    vit = TINY_VIT | {"hidden_size": 64, "image_size": SIDE, "layerscale_value": 1.0, "initializer_range": 0.1}
    network = ZeroShotClassifier(
        ImageEncoder(vit, embedding_dim=64), CLASSES, "multiclass", {"image_size": SIDE, "transforms": TRANSFORMS}
    )
    network.class_weights = torch.nn.functional.normalize(torch.randn(3, 64), dim=1)
    network.logit_scale = torch.tensor(2.0)
    save(network.state_dict(), path)


@pytest.fixture(scope="module")
def rows(shared_data):
    """Rows of the table of Kermany's set: those to label, of three classes in turn, and those to measure on."""
    with (shared_data / "data" / "cxr_kermany" / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    by_class = {name: [row for row in table if row["finding"] == name and row["split"] == "train"] for name in CLASSES}
    pool = [by_class[name][number] for number in range(20) for name in CLASSES]
    measured = [row for row in table if row["split"] != "train"][::3]
    return pool, measured


@pytest.fixture(scope="module")
def folder(shared_data, rows, tmp_path_factory):
    """Model and images of a server."""
    work = tmp_path_factory.mktemp("training")
    (work / "models").mkdir()
    (work / "studies").mkdir()
    write_classifier(work / "models" / "model.pt")
    for row in rows[0]:
        shutil.copy(shared_data / "data" / "cxr_kermany" / row["image"], work / "studies")
    return work


@pytest.fixture(scope="module")
def server(start, folder):
    conf = {"model": folder / "models" / "model.pt", "bundle": ROOT, "device": "cpu"}
    with start(folder / "studies", folder, conf) as running:
        yield running


def identifier(row):
    return row["image"].split("/")[-1].removesuffix(".jpeg")


def wait(server, path, seconds=240):
    """The task that a path tells of, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status, task = server.get(path)
        if status == 200 and task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(0.5)
    raise AssertionError(f"{path} does not end: {task}")


def auroc(model, shared_data, measured):
    scores = model.score([shared_data / "data" / "cxr_kermany" / row["image"] for row in measured]).probabilities
    truth = np.array([CLASSES.index(row["finding"]) for row in measured])
    return roc_auc_score(truth, scores, multi_class="ovr")


def order_of(server, strategy, count):
    """Images that a strategy shows, one after the other: those that were shown wait."""
    found = []
    for _ in range(count):
        status, answer = server.post(f"/activelearning/{strategy}")
        assert status == 200, answer
        found.append(answer)
    return found


def entropy_order(model, folder, unlabelled):
    found = model.score([folder / "studies" / f"{name}.jpeg" for name in unlabelled]).probabilities
    entropy = -(found * np.log(found)).sum(axis=1)
    return [unlabelled[place] for place in np.argsort(-entropy, kind="stable")]


def test_label_rank_train_and_rank_again(server, folder, rows, shared_data):
    pool, measured = rows
    model = ServedModel(folder / "models" / "model.pt", "cpu")
    before = auroc(model, shared_data, measured)
    status, answer = server.post("/train/cleft_classifier", {"method": "linear"})
    assert status == 200, answer
    failed = wait(server, "/train/")
    assert failed["status"] == "ERROR"
    assert any("labelled images are too few" in line for line in failed["details"]), failed["details"]
    assert server.infer(identifier(pool[0]))[1]["model"] == model.digest

    for row in pool[:LABELLED]:
        assert server.label(identifier(row), {"classification": row["finding"]})[0] == 200
    assert server.get("/info/")[1]["datastore"]["completed"] == LABELLED

    assert server.post("/scoring/cleft_scores")[0] in (200, 429)  # 429: it runs already, by itself
    assert wait(server, "/scoring/")["status"] == "DONE"
    unlabelled = [identifier(row) for row in pool[LABELLED:]]
    shown = order_of(server, "entropy", 5)
    assert [image["id"] for image in shown] == entropy_order(model, folder, unlabelled)[:5]
    assert shown[0]["score"] >= shown[1]["score"] >= shown[4]["score"]
    assert {answer["id"] for answer in order_of(server, "coreset", 3)} <= set(unlabelled)

    old = model.digest
    assert server.post("/train/cleft_classifier", {"method": "linear", "run_id": ""})[0] == 200
    assert server.post("/train/cleft_classifier", {"method": "linear"})[0] == 429, "one training at a time"
    done = wait(server, "/train/")
    assert done["status"] == "DONE", done["details"]
    stats = server.get("/info/")[1]["train_stats"]["cleft_classifier"]
    assert stats["published"]
    assert stats["after"]["auroc_macro"] >= stats["before"]["auroc_macro"]
    assert auroc(model, shared_data, measured) >= before

    status, answer = server.infer(unlabelled[0])
    assert answer["model"] == model.digest == sha256(model.path) == stats["model"] != old
    assert sha256(model.backup) == old

    expected = entropy_order(model, folder, unlabelled)
    served = [image["id"] for image in order_of(server, "entropy", 3)]
    already = {image["id"] for image in shown}
    assert served == [name for name in expected if name not in already][:3], "the order is that of the new scores"
    assert order_of(server, "margin", 1)[0]["model"] == model.digest


def test_a_killed_training_leaves_the_old_classifier_serving(server, folder, rows):
    model = ServedModel(folder / "models" / "model.pt", "cpu")
    before, image = model.digest, identifier(rows[0][-1])
    for row in rows[0][:LABELLED]:
        server.label(identifier(row), {"classification": row["finding"]})
    status, answer = server.post("/train/cleft_classifier", {"method": "image_tower", "max_epochs": 50})
    assert status == 200, answer
    training = process_of(server, "train")
    deadline = time.monotonic() + 120
    while not list((folder / "models" / "label_training").glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.5)
        if not training.is_running() or time.monotonic() > deadline - 90:
            break
    os.kill(training.pid, signal.SIGKILL)
    assert wait(server, "/train/")["status"] == "ERROR"
    status, answer = server.infer(image)
    assert (status, answer["model"]) == (200, before)
    assert sha256(model.path) == before
    status, answer = server.post("/train/cleft_classifier", {"method": "linear", "publish": "never"})
    assert status == 200, "the next training is not kept out by the killed one"
    assert wait(server, "/train/")["status"] == "DONE"
    assert json.loads((folder / "models" / "label_training" / "training.json").read_text())["published"] is False
    assert server.infer(image)[1]["model"] == before


def process_of(server, method, seconds=60):
    """The process that runs a task of the server."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in psutil.Process(server.process.pid).children(recursive=True):
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            if "monailabel.interfaces.utils.app" in command and method in command:
                return child
        time.sleep(0.2)
    raise AssertionError(f"no process of {method}")
