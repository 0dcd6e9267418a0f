"""What MONAI's model zoo checks on a contributed bundle, on the unpacked zip of the default model, without a network.

Source: ci/verify_bundle.py and ci/verify_properties.py of https://github.com/Project-MONAI/model-zoo
"""

import hashlib
import json
import shutil
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    create_workflow,
    load,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from monai.data import load_net_with_metadata

from cleft_bundle import __version__
from cleft_bundle.checkpoints import TrainedState, load_classifier, save
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.packaging import package_bundle
from cleft_bundle.packaging.export import network_data_format
from tests import processes
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SCHEMA = Path(__file__).with_name("meta_schema.json")


@pytest.fixture(scope="module")
def default_model(tmp_path_factory):
    """The classifier of train.json, untrained, built as `cleft build` builds it."""
    folder = tmp_path_factory.mktemp("models")
    config = ConfigParser()
    config.read_config(str(ROOT / "configs" / "train.json"))
    config["bundle_root"] = str(ROOT)
    save(TrainedState(config.get_parsed_content("network")).state_dict(), folder / "cleft.pt")
    workflow = ConfigWorkflow(
        [str(ROOT / "configs" / name) for name in ("train.json", "build_classifier.json")],
        logging_file=False,
        workflow_type="train",
        models_dir=str(folder),
    )
    workflow.initialize()
    workflow.run()
    return folder / "model.pt"


@pytest.fixture(scope="module")
def bundle(default_model, tmp_path_factory, wheel):
    """The bundle as whoever downloads it has it."""
    pytest.importorskip("cyclonedx", reason="needs the extra package")
    folder = tmp_path_factory.mktemp("zoo")
    with zipfile.ZipFile(package_bundle(ROOT, default_model, folder / "dist", wheel=wheel)) as archive:
        archive.extractall(folder)
    return folder / "cleft_bundle"


@pytest.fixture(scope="module")
def metadata(bundle):
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def test_the_directory_is_a_bundle(bundle):
    for name in ("configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md", "LICENSE"):
        assert (bundle / name).is_file(), name
    assert (bundle / "metadata.json").read_bytes() == (bundle / "configs" / "metadata.json").read_bytes()


def test_the_version_stands_in_the_changelog(metadata):
    assert metadata["version"] == __version__
    assert metadata["version"] in metadata["changelog"]
    assert f"[{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_metadata_follow_the_schema(bundle, tmp_path):
    pytest.importorskip("jsonschema", reason="needs the extra test")
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")  # MONAI downloads nothing where the file is there
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=schema)


@pytest.mark.parametrize(
    "broken",
    [
        {"version": "new"},
        {"authors": None},
        {"network_data_format#inputs#image#value_range": [0]},
        {"network_data_format#outputs#pred#channel_def": {"edema": 0}},
    ],
)
def test_metadata_that_do_not_follow_it_are_refused(broken, metadata, tmp_path):
    pytest.importorskip("jsonschema", reason="needs the extra test")
    parser = ConfigParser(deepcopy(metadata))
    parser.update(broken)
    (tmp_path / "metadata.json").write_text(json.dumps(parser.get()))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(
            meta_file=str(tmp_path / "metadata.json"), filepath=shutil.copy(SCHEMA, tmp_path / "schema.json")
        )


def test_the_data_format_tells_the_truth(default_model, metadata):
    truth = network_data_format(load_classifier(default_model))
    assert metadata["network_data_format"] == truth
    described = json.loads((ROOT / "configs" / "metadata.json").read_text())["network_data_format"]
    described["inputs"]["image"]["value_range"] = []  # of the default transforms; an arbitrary classifier's is unknown
    assert described == truth


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_the_workflows_have_monais_properties(kind, bundle, chest_phantoms):
    workflow = create_workflow(
        workflow_type=kind,
        config_file=str(bundle / "configs" / ("train.json" if kind == "train" else "inference.json")),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=str(bundle / "configs" / "logging.conf"),
        bundle_root=str(bundle),
        dataset_dir=chest_phantoms,
        **({"tracking_uri": ""} if kind == "train" else {}),
    )
    assert workflow.check_properties() == []


def test_input_and_output_of_the_network_are_those_described(bundle):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )


def export(command, bundle, path, **options):
    command(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        use_trace=True,
        **options,
    )


def check_scores(score, bundle):
    classifier = load_classifier(bundle / "models" / "model.pt")
    for batch in (1, 5):
        images = torch.randn(batch, 3, 112, 112, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(score(images), classifier(images), atol=1e-4, rtol=0)


def test_ckpt_export_traces_the_network(bundle, metadata, tmp_path):
    export(ckpt_export, bundle, tmp_path / "model.ts")
    network, stored, files = load_net_with_metadata(str(tmp_path / "model.ts"), more_extra_files=["inference.json"])
    check_scores(network, bundle)
    assert stored["network_data_format"] == metadata["network_data_format"]
    assert json.loads(files["inference.json"]) == json.loads((bundle / "configs" / "inference.json").read_text())


def test_onnx_export_takes_any_batch(bundle, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    options = {"input_names": ["image"], "output_names": ["pred"], "dynamo": True}
    options["dynamic_shapes"] = {"image": {0: "batch"}}
    export(onnx_export, bundle, tmp_path / "model.onnx", input_shape=[2, 3, 112, 112], converter_kwargs=options)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    check_scores(lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0]), bundle)


def test_monai_loads_the_bundle_by_its_name(bundle):
    network = load("cleft_bundle", workflow_type="inference", bundle_dir=str(bundle.parent), source="github")
    assert isinstance(network, ZeroShotClassifier)
    check_scores(network, bundle)


def test_monais_default_does_not_give_a_half_trained_network(bundle):
    with pytest.raises(BundleError, match=r"weights of a deployable classifier .* workflow_type='inference'"):
        load("cleft_bundle", bundle_dir=str(bundle.parent), source="github")


def test_the_unpacked_bundle_scores_a_folder(bundle, chest_phantoms, tmp_path):
    (tmp_path / "images").mkdir()
    source = next(Path(chest_phantoms).rglob("*.dcm"))
    shutil.copy(source, tmp_path / "images" / "one.dcm")
    for line in (bundle / "manifest.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest, name
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(tmp_path / "images"), "--output_dir", str(tmp_path / "eval")]
    done = processes.run(command, cwd=bundle)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = json.loads((tmp_path / "eval" / "predictions.json").read_text())["predictions"]
    assert row["error"] is None
    assert 0 <= row["edema"] <= 1
