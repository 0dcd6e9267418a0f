"""The vocabulary that a training writes beside its classifier."""

import json

import numpy as np
import pytest
import torch

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.checkpoints.text_bank import VOCABULARY, TextBank, space_of
from cleft_bundle.engines import ClassifierBuilder
from cleft_bundle.engines.vocabulary import TEMPLATE, template_of, texts_of
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import predict
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.metrics import Screening
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom

PROMPTS = {"edema": ["a film with edema"], "no finding": ["a film with no finding", "a clear film"]}


@pytest.fixture
def inferer(tokenize):
    return ZeroShotInferer(PROMPTS, tokenize, "multilabel", negatives={"edema": ["a film without edema"]})


def test_the_template_is_what_most_class_prompts_show():
    assert template_of({**PROMPTS, "mass": ["an image of mass"]}) == "a film with {class}"
    assert template_of({"edema": ["fluid"]}) == TEMPLATE


def test_it_knows_the_words_of_every_set_and_a_few_hundred_findings(inferer):
    texts = texts_of(inferer)
    assert len(texts) == len(set(texts))
    assert 250 <= len(texts) <= 900
    assert {*PROMPTS["edema"], "a clear film", "a film without edema", "a film with pneumothorax"} <= set(texts)
    for path in (ROOT / "configs" / "prompts").glob("*.json"):
        for name in json.loads(path.read_text())["classes"]:
            assert f"a film with {' '.join(name.lower().split())}" in texts


def test_it_holds_the_network_s_own_embeddings_and_serves_new_words(inferer, make_network, classifier, tmp_path):
    network = make_network().train()
    transforms = json.loads(json.dumps(classifier.preprocessing["transforms"]).replace("56", "28"))
    preprocessing = {"image_size": 28, "transforms": transforms}
    builder = ClassifierBuilder(inferer, preprocessing, Screening("none"), vocabulary=True)
    builder.write(network, tmp_path / "model.pt", {})
    assert network.training, "it is left as it was"
    space = space_of(load_classifier(tmp_path / "model.pt").image_encoder)
    bank = TextBank.load(tmp_path / VOCABULARY, space)
    texts = texts_of(inferer)
    assert bank.texts == texts
    assert bank.template == "a film with {class}"
    with torch.no_grad():
        rows = network.eval().encode_text(**inferer.tokenize(texts[5:8]))
    torch.testing.assert_close(bank.find(texts[5:8]), rows, rtol=1e-4, atol=1e-5)
    assert bank.find(["a film with rarissima"]) is None
    make_dicom(tmp_path / "a.dcm")
    found = predict(tmp_path / "a.dcm", ["pneumothorax", "kerley b lines"], model=tmp_path)
    assert set(found.provenance["words"].values()) == {"vocabulary"}
    assert np.isfinite(found.scores[["pneumothorax", "kerley b lines"]]).all(axis=None)
    with pytest.raises(BundleError, match=r"other words need .* there is no .*cleft\.pt"):
        predict(tmp_path / "a.dcm", "rarissima", model=tmp_path)
    builder.vocabulary = False
    (tmp_path / VOCABULARY).unlink()
    builder.write(network, tmp_path / "model.pt", {})
    assert not (tmp_path / VOCABULARY).exists()


def test_a_bank_of_another_model_and_no_bank_at_all_are_refused(tmp_path):
    TextBank("one", ["a"], torch.eye(1)).save(tmp_path / "bank.safetensors")
    with pytest.raises(BundleError, match="belongs to another model"):
        TextBank.load(tmp_path / "bank.safetensors", "other")
    (tmp_path / "bank.safetensors").write_text("no bank")
    with pytest.raises(BundleError, match="is no bank of texts"):
        TextBank.load(tmp_path / "bank.safetensors", "one")
