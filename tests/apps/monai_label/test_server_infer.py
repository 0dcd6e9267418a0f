"""Inference over HTTP, against the real server."""

import copy
import json
import re
import shutil
import time

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from cleft_bundle.apps.monai_label.lib.model import ServedModel
from cleft_bundle.apps.monai_label.lib.results import level_names
from cleft_bundle.checkpoints import save, sha256
from cleft_bundle.data.phantoms.dicom import Header, write
from cleft_bundle.data.radiograph_reader import RadiographReader
from tests.apps.monai_label.conftest import require_label_venv
from tests.configs.conftest import TINY
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom, save_nifti, scene

require_label_venv()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of model.pt and cleft.pt that a very small training has written."""
    folder = tmp_path_factory.mktemp("trained")
    override = {**TINY, "phantom_patients": 60, "output_dir": str(folder / "eval"), "models_dir": str(folder)}
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "train.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        tracking_uri="",
        **override,
    )
    workflow.initialize()
    workflow.run()
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """One scene in every format, phantoms, a file that is no image, and an image that shows nothing."""
    folder = tmp_path_factory.mktemp("studies")
    make_dicom(folder / "scene_dicom.dcm")
    make_dicom(folder / "inverted.dcm", 4095 - scene(), PhotometricInterpretation="MONOCHROME1")
    Image.fromarray(scene().astype(np.uint16)).save(folder / "scene_png.png")
    save_nifti(folder / "scene_nifti.nii.gz", scene().T.astype(np.int16))
    Image.fromarray((scene() >> 4).astype(np.uint8)).save(folder / "scene_jpeg.jpeg", quality=98)
    rng = np.random.default_rng(0)
    for number in range(2):
        header = Header("chest", number + 1, 1, 1, 0, "F", 50, "20200101", "PA")
        write(folder / f"phantom_{number}.dcm", rng.random((80, 70)), header, rng)
    Image.fromarray(np.full((60, 50), 7, np.uint8)).save(folder / "blank.png")
    (folder / "broken.dcm").write_bytes(b"this is no image")
    return folder


@pytest.fixture(scope="module")
def conf(trained):
    return {"model": trained / "model.pt", "bundle": ROOT, "values": json.dumps(TINY_NETWORK, separators=(",", ":"))}


TINY_NETWORK = {key: value for key, value in TINY.items() if key.startswith("image_")}


@pytest.fixture(scope="module")
def server(start, studies, conf, tmp_path_factory):
    with start(studies, tmp_path_factory.mktemp("server"), conf) as running:
        yield running


@pytest.fixture(scope="module")
def expected(trained, studies, tmp_path_factory):
    """What configs/inference.json says of the same files, by their names without suffix."""
    return scores_of(trained / "model.pt", studies, tmp_path_factory.mktemp("inference"))


def scores_of(model, folder, output):
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        **{"model_path": str(model), "dataset_dir": str(folder), "output_dir": str(output), "num_workers": 0},
    )
    workflow.initialize()
    workflow.run()
    content = json.loads((output / "predictions.json").read_text())
    names = ServedModel(model, "cpu").class_names
    rows = {row["image"].split(".")[0]: row for row in content["predictions"]}
    return {image: {name: row[name] for name in names} for image, row in rows.items() if row["error"] is None}


def scores(answer):
    return {row["label"]: row["score"] for row in answer["prediction"]}


def test_the_models_are_listed_as_classification(server, trained):
    status, info = server.get("/info/")
    assert status == 200
    assert {name: model["type"] for name, model in info["models"].items()} == {
        "cleft_classifier": "classification",
        "cleft_prompt": "classification",
    }
    assert list(info["models"]["cleft_classifier"]["labels"]) == ServedModel(trained / "model.pt", "cpu").class_names
    assert set(info["strategies"]) == {"entropy", "margin", "coreset", "random"}
    assert info["datastore"]["total"] == 9


@pytest.mark.parametrize("image", ["scene_dicom", "scene_png", "scene_nifti", "scene_jpeg", "inverted", "phantom_0"])
def test_scores_are_those_of_inference_json(server, expected, trained, image):
    status, answer = server.infer(image)
    assert status == 200
    assert answer["model"] == sha256(trained / "model.pt")
    assert scores(answer) == pytest.approx(expected[image], abs=1e-4)
    thresholds = ServedModel(trained / "model.pt", "cpu").classifier.operating_point["thresholds"]
    assert thresholds
    assert answer["positive"] == [name for name, least in thresholds.items() if expected[image][name] >= least]


def test_one_scene_has_one_score_in_every_format(server):
    first, *others = (
        scores(server.infer(image)[1]) for image in ("scene_dicom", "inverted", "scene_png", "scene_nifti")
    )
    for other in others:
        assert other == pytest.approx(first, abs=1e-4)


@pytest.mark.shared_data
def test_real_files_have_the_scores_of_inference_json(start, conf, shared_data, tmp_path):
    studies = tmp_path / "studies"
    shutil.copytree(
        shared_data / "data" / "dicom", studies, ignore=lambda _, names: [n for n in names if ".dcm" not in n]
    )
    jpeg = min((shared_data / "data" / "cxr_kermany" / "images").iterdir())
    shutil.copy(jpeg, studies / "real.jpeg")
    Image.open(jpeg).save(studies / "real_png.png")
    nib.save(nib.Nifti1Image(np.asarray(Image.open(jpeg).convert("L")).T, np.eye(4)), studies / "real_nifti.nii")
    wanted = scores_of(conf["model"], studies, tmp_path)
    assert len(wanted) == 6
    with start(studies, tmp_path, conf | {"cleft": "none"}) as server:
        for image, expected in wanted.items():
            status, answer = server.infer(image)
            assert status == 200
            assert scores(answer) == pytest.approx(expected, abs=1e-4)
        assert list(server.get("/info/")[1]["models"]) == ["cleft_classifier"]


@pytest.mark.parametrize(
    ("image", "model", "params", "status", "reason"),
    [
        ("broken", "cleft_classifier", {}, 400, "is not an image that is known here"),
        ("blank", "cleft_classifier", {}, 400, "blank"),
        ("nowhere", "cleft_classifier", {}, 404, "'nowhere' is not in the datastore"),
        ("phantom_0", "segmentation", {}, 400, "no model 'segmentation'"),
        ("phantom_0", "cleft_classifier", {"heat_map": "edma"}, 400, "heat_map: expected one of none, highest"),
        ("phantom_0", "cleft_prompt", {}, 400, "'classes': names of findings are expected"),
        ("phantom_0", "cleft_prompt", {"classes": "a|b", "task": "both"}, 400, "task: expected one of"),
    ],
)
def test_what_cannot_be_answered_has_its_reason_and_the_server_lives_on(server, image, model, params, status, reason):
    found, answer = server.infer(image, model, **params)
    assert found == status
    assert reason in answer["detail"]
    assert server.infer("phantom_0")[0] == 200
    assert server.process.poll() is None


def test_classes_in_words_are_scored_zero_shot(server, expected):
    status, answer = server.infer("phantom_0", "cleft_prompt", classes="edema|no finding")
    assert status == 200
    found = scores(answer)
    assert list(found) == ["edema", "no finding"]
    assert found["edema"] + found["no finding"] == pytest.approx(1, abs=1e-5)  # each is the other's negative
    one = scores(server.infer("phantom_0", "cleft_prompt", classes=["edema"])[1])
    assert one == pytest.approx(found)
    own = server.infer(
        "phantom_0", "cleft_prompt", classes={"wet": "a chest x ray with edema", "dry": ["a chest x ray"]}
    )
    assert list(scores(own[1])) == ["wet", "dry"]
    many = scores(server.infer("phantom_0", "cleft_prompt", classes=list(expected["phantom_0"]), task="multiclass")[1])
    assert sum(many.values()) == pytest.approx(1, abs=1e-5)


def test_three_d_slicers_client_gets_scores_and_a_file_that_it_can_open(server, slicer_client, expected, tmp_path):
    client = slicer_client.MONAILabelClient(server.url, str(tmp_path), "reader")
    info = client.info()
    # as the module does: the first of each list of options, and these two
    options = info["models"]["cleft_classifier"]["config"]
    params = {key: value[0] if isinstance(value, list) else value for key, value in options.items()}
    params |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
    file, answer = client.infer("cleft_classifier", "phantom_0", params)
    assert scores(answer) == pytest.approx(expected["phantom_0"], abs=1e-4)
    assert file.endswith(".json")
    (markup,) = json.loads((tmp_path / file).read_text())["markups"]
    labels = [point["label"] for point in markup["controlPoints"]]
    assert labels == [f"{name} {score:.3f}" for name, score in scores(answer).items()]
    file, _ = client.infer("cleft_prompt", "phantom_0", {"classes": "edema", "result_extension": ".nrrd"})
    assert file.endswith(".json")
    with pytest.raises(slicer_client.MONAILabelClientException) as caught:
        client.infer("cleft_classifier", "broken", {})
    assert "is not an image that is known here" in caught.value.msg


@pytest.mark.parametrize(("image", "suffix"), [("scene_dicom", ".nii.gz"), ("scene_nifti", ".nii.gz")])
def test_a_heat_map_is_a_label_image_over_the_pixels_of_the_file(server, studies, image, suffix, tmp_path):
    status, content = server.infer(image, output="image", heat_map="edema", result_extension=suffix)
    assert status == 200
    (tmp_path / f"map{suffix}").write_bytes(content)
    volume = nib.load(tmp_path / f"map{suffix}")
    source = next(studies.glob(f"{image}.*"))
    reader = RadiographReader()
    original, meta = reader.get_data(reader.read(source))
    assert volume.shape == (original.shape[1], original.shape[0], 1)
    values, counts = np.unique(np.asarray(volume.dataobj), return_counts=True)
    assert set(values) <= {0, 1, 2, 3}
    assert counts.sum() == original.size
    if image == "scene_nifti":
        np.testing.assert_allclose(volume.affine, nib.load(source).affine, atol=1e-6)
    else:
        np.testing.assert_allclose(np.diag(volume.affine)[:2], -np.nan_to_num(meta["original_spacing"][::-1], nan=1))


def test_an_answer_of_parts_names_the_levels_of_the_map(server):
    status, content = server.infer("phantom_1", output="", heat_map="highest")
    assert status == 200
    text = content.decode("latin-1")
    answer = json.loads(re.search(r"\{.*\}", text.split("NRRD")[0], re.DOTALL)[0])
    called = [name for name in answer["positive"] if name != "no finding"]
    if called:
        best = max(called, key=lambda name: scores(answer)[name])
        assert answer["heat_map"] == best
        assert answer["label_names"] == level_names(best)
        assert re.match(rf"{best}: score 0\.\d+, threshold 0\.\d+: called; labels in ", answer["heat_map_note"])
    else:
        assert (answer["heat_map"], answer["label_names"]) == (None, {})
        assert answer["heat_map_note"] == "no finding is called"


def test_a_class_without_a_threshold_has_its_map_by_its_name(server, tmp_path):
    """Classes in words have none; "none" is one of them."""
    asked = {"classes": "none|edema", "result_extension": ".nii.gz"}
    status, content = server.infer("phantom_1", "cleft_prompt", output="image", heat_map="highest", **asked)
    assert status == 200
    (tmp_path / "map.nii.gz").write_bytes(content)
    assert not np.asarray(nib.load(tmp_path / "map.nii.gz").dataobj).any()
    status, content = server.infer("phantom_1", "cleft_prompt", output="", heat_map="class:none", **asked)
    assert status == 200
    assert b'"heat_map": "none"' in content.replace(b'"heat_map":"none"', b'"heat_map": "none"')


def test_a_replaced_classifier_is_served_without_a_restart(server, trained, studies, tmp_path):
    model = ServedModel(trained / "model.pt", "cpu")
    before = scores(server.infer("phantom_1")[1])
    changed = copy.deepcopy(model.classifier)
    changed.class_weights = -changed.class_weights
    save(changed.state_dict(), tmp_path / "new.pt")
    old = model.digest
    digest = model.publish(tmp_path / "new.pt")
    try:
        status, answer = server.infer("phantom_1")
        assert (status, answer["model"]) == (200, digest)
        assert scores(answer) != pytest.approx(before, abs=1e-5)
        expected = model.score([studies / "phantom_1.dcm"]).probabilities[0].tolist()
        assert list(scores(answer).values()) == pytest.approx(expected, abs=1e-4)
    finally:
        model.publish(model.backup)
    assert server.infer("phantom_1")[1]["model"] == old


def test_labels_are_checked_when_they_are_stored(server, trained, studies):
    name = ServedModel(trained / "model.pt", "cpu").class_names[0]
    status, _ = server.label("phantom_1", {"classification": [name]})
    assert status == 200
    stored = studies / "labels" / "final" / "phantom_1.json"
    assert json.loads(stored.read_text()) == {"classification": [name]}
    for content, reason in (
        ({"classification": "ascites"}, "class 'ascites' is unknown"),
        ("{", "is no JSON"),
        ({"prediction": [{"label": name, "score": 0.4}]}, "the score 0.4 is no label"),
    ):
        status, answer = server.label("phantom_1", content)
        assert status == 400
        assert reason in answer["detail"]
    assert server.label("phantom_1", "x", suffix=".nii.gz")[0] == 400
    assert server.label("nowhere", {"classification": [name]})[0] == 404
    assert json.loads(stored.read_text()) == {"classification": [name]}, "what was stored stays"
    status, info = server.get("/info/")
    assert info["datastore"]["completed"] == 1


def test_the_python_of_the_guide_runs_as_it_stands(server, studies):
    pytest.importorskip("requests", reason="the guide's Python uses requests")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "monai_label.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "import requests" in block)
    assert "http://127.0.0.1:8000" in code
    found = {}
    exec(code.replace("http://127.0.0.1:8000", server.url), found)  # noqa: S102  # our own document
    stored = json.loads((studies / "labels" / "final" / f"{found['image']}.json").read_text())
    assert stored == found["label"]
    assert stored["classification"] == [max(found["scores"], key=found["scores"].get)]


def test_a_batch_passes_over_what_cannot_be_read(server, studies):
    assert server.post("/batch/infer/cleft_classifier?images=all&run_sync=false")[0] == 200
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        _, task = server.get("/batch/infer/")
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(1)
    assert task["status"] == "DONE", task
    stored = {path.name for path in (studies / "labels" / "original").iterdir()}
    assert "phantom_0.json" in stored
    assert "broken.json" not in stored
    assert len(stored) == 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("class_weights"), "model.pt does not fit its own settings"),
        (lambda state: state.clear(), "is not a classifier of this bundle"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_at_the_start(start, trained, studies, tmp_path, change, reason):
    state = ServedModel(trained / "model.pt", "cpu").classifier.state_dict()
    change(state)
    save(dict(state), tmp_path / "model.pt")
    with start(studies, tmp_path, {"model": tmp_path / "model.pt"}) as server:
        assert server.process.wait(60) != 0
        log = server.log.read_text()
    assert log.count("error: ") == 1
    assert reason in next(line for line in log.splitlines() if line.startswith("error: "))


def test_a_language_model_that_does_not_fit_is_refused_at_the_start(start, studies, conf, tmp_path):
    with start(studies, tmp_path, conf | {"values": "{}"}) as server:
        assert server.process.wait(60) != 0
        log = server.log.read_text()
    assert "cleft.pt: the checkpoint does not fit the network" in log
    assert "--conf cleft none" in log
