import json
import zipfile

import pytest

from cleft_bundle import __version__
from cleft_bundle.checkpoints import save
from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import package_bundle

pytest.importorskip("cyclonedx", reason="needs the extra package")


@pytest.fixture
def working_folder(tmp_path, model_pt):
    """A bundle in which people have worked: data, runs and checkpoints lie about."""
    root = tmp_path / "bundle"
    for name in ("LICENSE", "docs/README.md", "configs/prompts/own.json", "configs/train.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    (root / "configs/metadata.json").write_text(json.dumps({"version": "0", "network_data_format": {}}))
    private = ["data/patient.dcm", "data/labels.csv", "eval/mlruns.db", "eval/predictions.csv", "docs/patient.dcm"]
    private += ["configs/labels.csv", "models/cleft.pt", "models/checkpoints/training.pt", "configs/.cache/one.json"]
    for name in private:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    return root


def names(archive):
    return {name.removeprefix("cleft_bundle/") for name in zipfile.ZipFile(archive).namelist()}


def test_the_zip_holds_what_serves_and_nothing_else(working_folder, model_pt, tmp_path):
    archive = package_bundle(working_folder, model_pt, tmp_path / "dist")
    assert archive.name == f"cleft_bundle_v{__version__}.zip"
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert names(archive) == {
        *("LICENSE", "docs/README.md", "metadata.json", "manifest.sha256", "sbom.cdx.json", "models/model.pt"),
        *("configs/metadata.json", "configs/prompts/own.json", "configs/train.json"),
    }
    content = zipfile.ZipFile(archive)
    for name in ("metadata.json", "configs/metadata.json"):
        described = json.loads(content.read(f"cleft_bundle/{name}"))["network_data_format"]
        assert described["outputs"]["pred"]["channel_def"]["1"] == "pleural effusion"
        assert described["inputs"]["image"]["spatial_shape"] == [56, 56]
    assert content.read("cleft_bundle/models/model.pt") == model_pt.read_bytes()
    listed = {line.split("  ")[1] for line in content.read("cleft_bundle/manifest.sha256").decode().splitlines()}
    assert listed == names(archive) - {"manifest.sha256"}


def test_the_bill_of_materials_names_packages_licences_and_the_model(working_folder, model_pt, tmp_path):
    content = zipfile.ZipFile(package_bundle(working_folder, model_pt, tmp_path)).read("cleft_bundle/sbom.cdx.json")
    bom = json.loads(content)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "cleft_bundle"
    parts = {part["name"].lower(): part for part in bom["components"]}
    assert {"torch", "monai", "pydicom", "models/model.pt"} <= parts.keys()
    assert "pytest" not in parts  # an extra of the tests
    assert parts["pydicom"]["purl"] == f"pkg:pypi/pydicom@{parts['pydicom']['version']}"
    assert parts["monai"]["licenses"]
    model = parts["models/model.pt"]
    assert model["type"] == "machine-learning-model"
    manifest = zipfile.ZipFile(next(tmp_path.glob("*.zip"))).read("cleft_bundle/manifest.sha256").decode()
    assert f"{model['hashes'][0]['content']}  models/model.pt\n" in manifest


def test_exported_files_go_along_where_they_are_asked_for(working_folder, model_pt, tmp_path):
    model = tmp_path / "model.pt"
    model.write_bytes(model_pt.read_bytes())
    with pytest.raises(BundleError, match=r"model.ts does not exist: cleft export --forms torchscript"):
        package_bundle(working_folder, model, tmp_path, ["torchscript"])
    model.with_suffix(".ts").write_text("a file")
    assert "models/model.ts" in names(package_bundle(working_folder, model, tmp_path, ["torchscript"]))


def test_a_training_checkpoint_is_not_packed(working_folder, tmp_path):
    save({"format": 2, "weights": {}}, tmp_path / "cleft.pt")
    with pytest.raises(BundleError, match=r"cleft.pt is not a classifier of this bundle"):
        package_bundle(working_folder, tmp_path / "cleft.pt", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()
