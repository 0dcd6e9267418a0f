"""``cleft_bundle.predict``: scores in one call, of whatever is handed over."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image

import cleft_bundle
from cleft_bundle.checkpoints import TrainedState, save
from cleft_bundle.checkpoints.text_bank import VOCABULARY, TextBank, space_of
from cleft_bundle.commands.command_line import call
from cleft_bundle.commands.predict import predict as command
from cleft_bundle.config_files import read_config
from cleft_bundle.engines.vocabulary import TEMPLATE
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import Predictor, Scorer, own_words
from cleft_bundle.inference.heat_maps import HeatMaps
from cleft_bundle.networks import ZeroShotClassifier, class_weights
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom

CANARY = "CANARY^SURNAME"
TINY = {
    "image_backbone": {
        "model_type": "dinov2_with_registers", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_register_tokens": 1, "patch_size": 14, "image_size": 28, "layerscale_value": 1.0, "initializer_range": 0.1,
    },
    "image_size": 28, "embedding_dim": 8, "text_backbone#n_embd": 16, "text_backbone#n_layer": 1,
    "text_backbone#n_head": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, classifier):
    """The folder of model.pt and cleft.pt of one network of random weights, and the network with its tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    parser = read_config(str(ROOT / "configs" / "train.json"), TINY)
    network, tokenize = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("tokenize")
    transforms = json.loads(json.dumps(classifier.preprocessing["transforms"]).replace("56", "28"))
    names = ["edema", "Pleural Effusion", "no finding"]
    prompts = {name: [TEMPLATE.replace("{class}", name)] for name in names}
    weights = class_weights(network, prompts, tokenize, "multilabel")
    preprocessing = {"image_size": 28, "transforms": transforms}
    model = ZeroShotClassifier.from_cleft(network, names, weights, "multilabel", preprocessing)
    model.calibrate(0.5, [0.1, -0.2, 0.3], {"edema": 0.4})
    model.provenance = {"run": {"id": "7", "name": "trained"}}
    save(model.state_dict(), folder / "model.pt")
    save(TrainedState(network).state_dict(), folder / "cleft.pt")
    return folder, network, tokenize


@pytest.fixture
def alone(made, tmp_path):
    """A copy of the model without its cleft.pt."""
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "model.pt").write_bytes((made[0] / "model.pt").read_bytes())
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 4096 >> number, (60, 50)).astype(np.uint16)
        make_dicom(folder / f"{number}.dcm", pixels, PatientName=CANARY, PatientID=CANARY)
    (folder / "letter.dcm").write_text("no image")
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(folder / "blank.png")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_has_the_scores_that_the_scorer_gives(made, files):
    found = cleft_bundle.predict(files, model=made[0])
    paths = sorted(files.iterdir())
    expected = Scorer(made[0] / "model.pt").score({"image": path} for path in paths)
    assert list(found.scores.index) == [path.name for path in paths]
    assert found.findings == ["edema", "Pleural Effusion", "no finding"]
    np.testing.assert_array_equal(found.scores[found.findings], expected.scores)
    assert found.scores["error"].tolist() == expected.errors
    assert found.scores["positive"].notna().tolist() == [not error for error in expected.errors]
    above = expected.scores[:, 0] >= 0.4
    assert [row is not None and row == ["edema"] for row in found.scores["positive"]] == above.tolist()
    assert found.provenance["calibrated"] == found.findings
    assert found.provenance["run"]["name"] == "trained"


def test_a_class_beside_new_words_keeps_the_score_of_the_model(made, files):
    """New words are scored against a "no finding" of their own, which is not the class of that name."""
    path = files / "1.dcm"
    alone = cleft_bundle.predict(path, ["no finding"], model=made[0]).scores["no finding"].iloc[0]
    beside = Predictor(made[0], override=TINY).predict(path, ["mass", "No Finding"])
    assert beside.findings == ["mass", "no finding"]
    assert beside.scores["no finding"].iloc[0] == alone
    assert beside.scores["mass"].iloc[0] != pytest.approx(1 - alone)


def test_a_path_a_list_a_dataset_and_an_array_are_the_same_image(made, files, tmp_path):
    path = files / "1.dcm"
    dataset = pydicom.dcmread(path)
    expected = cleft_bundle.predict(str(path), model=made[0]).scores.iloc[0]
    levels = cleft_bundle.predict(path, model=made[0]).image(0)
    found = cleft_bundle.predict([path, dataset, levels, levels.astype(np.float64)], model=made[0]).scores
    assert list(found.index) == [str(path), "image 2", "image 3", "image 4"]
    np.testing.assert_allclose(found["edema"].astype(float), [expected["edema"]] * 4, atol=1e-6)
    assert list(dataset.file_meta) == list(pydicom.dcmread(path).file_meta), "what was handed over stays as it was"


def test_classes_are_found_whatever_their_case_and_need_no_language_model(alone, files):
    found = cleft_bundle.predict(files / "0.dcm", ["pleural  effusion", "EDEMA"], model=alone)
    assert found.findings == ["Pleural Effusion", "edema"]
    whole = cleft_bundle.predict(files / "0.dcm", model=alone)
    assert found.scores["edema"].iloc[0] == whole.scores["edema"].iloc[0]
    assert found.provenance["words"] == {"Pleural Effusion": "model", "edema": "model"}


def test_new_words_have_the_scores_of_their_prompt_against_no_finding(made, files):
    folder, network, tokenize = made
    prompts = {name: [TEMPLATE.replace("{class}", name)] for name in ("pneumothorax", "no finding")}
    model = Scorer(folder / "model.pt")
    weights = class_weights(network, prompts, tokenize, "multilabel")
    own = ZeroShotClassifier.from_cleft(network, list(prompts), weights, "multilabel", model.preprocessing)
    expected = Scorer(own).score([{"image": files / "0.dcm"}]).scores[0, 0]
    predictor = Predictor(folder, override=TINY)
    found = predictor.predict(files / "0.dcm", ["edema", "pneumothorax", "kerley b lines"])
    assert found.scores["pneumothorax"].iloc[0] == pytest.approx(expected, abs=1e-6)
    assert predictor.predict(files / "0.dcm", "pneumothorax").scores["pneumothorax"].iloc[0] == pytest.approx(expected)
    assert found.scores["edema"].iloc[0] == cleft_bundle.predict(files / "0.dcm", model=folder).scores["edema"].iloc[0]
    assert found.provenance["words"] == {"edema": "model", **dict.fromkeys(found.findings[1:], "language model")}
    assert found.provenance["calibrated"] == ["edema"]
    assert "not calibrated" in found.warnings[-1]
    assert "pneumothorax, kerley b lines" in found.warnings[-1]


def test_prompts_are_embedded_once_and_the_cache_tells_nobody_the_words(made, files, cache, monkeypatch):
    first = Predictor(made[0], override=TINY).predict(files / "0.dcm", ["rarissima"])
    monkeypatch.setattr(own_words, "load_trained", None)  # what would load the language side
    again = Predictor(made[0], override=TINY).predict(files / "0.dcm", ["rarissima"])
    assert again.provenance["words"] == {"rarissima": "cache"}
    pd.testing.assert_frame_equal(again.scores, first.scores)
    (file,) = (cache / "cleft_bundle" / "prompts").iterdir()
    assert b"rarissima" not in file.read_bytes()
    file.write_bytes(b"torn")
    with pytest.raises(TypeError):
        Predictor(made[0], override=TINY).predict(files / "0.dcm", ["rarissima"])


def test_a_vocabulary_beside_the_model_needs_no_language_model_and_must_be_its_own(made, alone, files, monkeypatch):
    _, network, tokenize = made
    texts = [f"a film of {name}" for name in ("pneumothorax", "no finding")]
    with torch.no_grad():
        rows = network.encode_text(**tokenize(texts))
    space = space_of(network.image_encoder.merged())
    TextBank(space, texts, rows, "a film of {class}").save(alone / VOCABULARY)
    monkeypatch.setattr(own_words, "load_trained", None)
    found = cleft_bundle.predict(files / "0.dcm", "pneumothorax", model=alone)
    assert found.provenance["words"] == {"pneumothorax": "vocabulary"}
    expected = Predictor(made[0], override=TINY, template="a film of {class}")
    monkeypatch.undo()
    scores = expected.predict(files / "0.dcm", "pneumothorax").scores
    np.testing.assert_allclose(scores["pneumothorax"], found.scores["pneumothorax"], atol=1e-6)
    TextBank("of another", texts, rows).save(alone / VOCABULARY)
    with pytest.raises(BundleError, match="belongs to another model"):
        cleft_bundle.predict(files / "0.dcm", "pneumothorax", model=alone)


def test_with_the_model_alone_new_words_are_refused_with_what_they_need(alone, files):
    with pytest.raises(BundleError, match=r"pneumothorax: not among .*edema.*vocabulary.safetensors.*cleft\.pt"):
        cleft_bundle.predict(files / "0.dcm", "pneumothorax", model=alone)


def test_heat_maps_lie_on_the_pixels_of_what_was_given(made, files):
    images = [files / "0.dcm", pydicom.dcmread(files / "0.dcm")]
    found = Predictor(made[0], override=TINY).predict(images, ["edema", "mass"])
    heat = found.heat_map("edema", 1)
    assert heat.shape == (60, 50)
    scorer = Scorer(made[0] / "model.pt")
    maps = HeatMaps(scorer.network, scorer.transforms)
    np.testing.assert_allclose(heat, maps(maps.load({"image": str(files / "0.dcm")}), ["edema"])[0], atol=1e-6)
    assert np.ptp(found.heat_map("mass")) > 0
    for finding, image, message in (("fracture", 0, "none of edema, mass"), ("mass", 2, "none of the 2 images")):
        with pytest.raises(BundleError, match=message):
            found.heat_map(finding, image)


@pytest.mark.parametrize(
    ("images", "find", "message"),
    [
        ([], None, "list is empty"),
        (7, None, "got a int"),
        ([None], None, "got a NoneType"),
        (np.zeros((2, 2, 2)), None, "image 1: expected numbers"),
        ("nowhere", [], "names of findings"),
        ("nowhere", [" "], "names of findings"),
        (pydicom.Dataset(), None, "cannot be written as a file"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_line(made, images, find, message):
    with pytest.raises(BundleError, match=message):
        cleft_bundle.predict(images, find, model=made[0])


def test_a_missing_file_is_a_row_and_a_folder_without_a_model_an_error(made, tmp_path):
    found = cleft_bundle.predict([tmp_path / "gone.dcm"], model=made[0])
    assert found.scores["error"].iloc[0]
    assert found.scores["edema"].isna().all()
    with pytest.raises(BundleError, match=r"holds no model\.pt"):
        cleft_bundle.predict("x.dcm", model=tmp_path)


def test_nothing_that_comes_back_names_the_patient(made, files):
    found = Predictor(made[0], override=TINY).predict([files, pydicom.dcmread(files / "0.dcm")], ["edema", "mass"])
    told = f"{found!r} {found.scores.to_csv()} {found.warnings} {found.provenance}"
    assert CANARY not in told
    assert any("blank" in warning for warning in found.warnings)


def test_the_console_takes_a_finding_again_and_again(made, files, tmp_path, capsys):
    words = [str(files), "--model", str(made[0]), "--find", "edema", "--find", "Pleural Effusion"]
    call("predict", command, [*words, f"--csv={tmp_path / 'scores.csv'}", "--heat_maps", str(tmp_path / "maps")])
    told = "".join(capsys.readouterr())
    table = pd.read_csv(tmp_path / "scores.csv", index_col="image")
    expected = cleft_bundle.predict(files, ["edema", "Pleural Effusion"], model=made[0]).scores
    np.testing.assert_allclose(table[["edema", "Pleural Effusion"]], expected[["edema", "Pleural Effusion"]])
    drawn = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert drawn == [f"{image}_{finding}.png" for image in (1, 2, 3) for finding in (1, 2)]
    assert "heat maps: 6 in" in told
    assert CANARY not in told


def test_importing_the_package_stays_light():
    code = "import sys, cleft_bundle; assert not {'torch', 'monai', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
