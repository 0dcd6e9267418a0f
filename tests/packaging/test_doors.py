"""The doors where others knock, from an empty folder with only the wheel and the zip."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from cleft_bundle.packaging import export_classifier, package_bundle
from tests.conftest import ROOT

pytest.importorskip("cyclonedx", reason="needs the extra package")
pytest.importorskip("jsonschema", reason="needs the extra test")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zoo(classifier, model_pt, wheel, tmp_path_factory):
    """A folder that holds the unpacked zip, and the schema that MONAI would download."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "built").mkdir()
    shutil.copy(model_pt, folder / "built" / "model.pt")
    export_classifier(classifier, folder / "built" / "model", ["torchscript"])
    packed = package_bundle(ROOT, folder / "built" / "model.pt", folder / "dist", ["torchscript"], wheel=wheel)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "models")
    shutil.rmtree(folder / "built")
    shutil.copy(ROOT / "tests" / "configs" / "meta_schema.json", folder / "schema.json")
    return folder


@pytest.fixture(scope="module")
def found(zoo, elsewhere):
    """What each knock gave."""
    elsewhere.run(str(Path(__file__).with_name("knocks.py").resolve()), cwd=zoo)
    return json.loads((zoo / "found.json").read_text())


def test_the_package_is_that_of_the_wheel(found, elsewhere):
    assert found["package"]["result"] == str(elsewhere.site / "cleft_bundle" / "__init__.py")


def test_the_zoo_verifies_the_bundle(found):
    assert found["zoo_metadata"] == {"result": None}
    assert found["zoo_properties"] == {"result": []}
    assert found["zoo_data_shape"] == {"result": None}
    assert found["zoo_torchscript"] == {"result": 0.0}


def test_whoever_parses_a_config_in_the_bundle_reads_that_bundle(found):
    prompts = json.loads((ROOT / "configs" / "prompts" / "chexpert.json").read_text())
    assert found["parser_in_the_bundle"] == {"result": list(prompts["classes"])}
    assert found["onnx_in_the_bundle"] == {"result": True}


def test_the_bundle_is_loaded_for_inference_without_an_image(found):
    assert found["load_for_inference"] == {"result": {"difference": 0.0, "left_behind": False}}


def test_monais_default_is_refused_and_says_what_works(found):
    assert "workflow_type='inference'" in found["load_by_default"]["error"]


def test_monai_deploy_finds_transforms_and_inferer_in_the_torchscript(found):
    assert found["monai_deploy"] == {"result": True}


def test_the_manifest_names_every_file_but_itself(zoo):
    bundle = zoo / "models" / "cleft_bundle"
    lines = (bundle / "manifest.sha256").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    with zipfile.ZipFile(next((zoo / "dist").iterdir())) as archive:
        contents = {name.removeprefix("cleft_bundle/"): archive.read(name) for name in archive.namelist()}
    assert listed.keys() == contents.keys() - {"manifest.sha256"}
    assert {name: hashlib.sha256(contents[name]).hexdigest() for name in listed} == listed
