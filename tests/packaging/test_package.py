import json
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from monai.apps.utils import HashCheckError
from monai.bundle import download_large_files, push_to_hf_hub, scripts

from cleft_bundle import __version__
from cleft_bundle.checkpoints import save
from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import package, package_bundle
from tests.conftest import ROOT

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


def test_the_zip_holds_what_serves_and_nothing_else(working_folder, model_pt, tmp_path, wheel):
    archive = package_bundle(working_folder, model_pt, tmp_path / "dist", wheel=wheel)
    assert archive.name == f"cleft_bundle_v{__version__}.zip"
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert names(archive) == {
        *("LICENSE", "docs/README.md", "metadata.json", "manifest.sha256", "sbom.cdx.json", "models/model.pt"),
        *("configs/metadata.json", "configs/prompts/own.json", "configs/train.json"),
        *("README.md", f"wheels/{wheel.name}"),
    }
    content = zipfile.ZipFile(archive)
    for name in ("metadata.json", "configs/metadata.json"):
        described = json.loads(content.read(f"cleft_bundle/{name}"))["network_data_format"]
        assert described["outputs"]["pred"]["channel_def"]["1"] == "pleural effusion"
        assert described["inputs"]["image"]["spatial_shape"] == [56, 56]
    assert content.read("cleft_bundle/models/model.pt") == model_pt.read_bytes()
    listed = {line.split("  ")[1] for line in content.read("cleft_bundle/manifest.sha256").decode().splitlines()}
    assert listed == names(archive) - {"manifest.sha256"}


def test_the_bill_of_materials_names_packages_licences_and_the_model(working_folder, model_pt, tmp_path, wheel):
    archive = package_bundle(working_folder, model_pt, tmp_path, wheel=wheel)
    content = zipfile.ZipFile(archive).read("cleft_bundle/sbom.cdx.json")
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


def test_exported_files_go_along_where_they_are_asked_for(working_folder, model_pt, tmp_path, wheel):
    model = tmp_path / "model.pt"
    model.write_bytes(model_pt.read_bytes())
    with pytest.raises(BundleError, match=r"model.ts does not exist: cleft export --forms torchscript"):
        package_bundle(working_folder, model, tmp_path, ["torchscript"], wheel)
    model.with_suffix(".ts").write_text("a file")
    assert "models/model.ts" in names(package_bundle(working_folder, model, tmp_path, ["torchscript"], wheel))


def test_a_training_checkpoint_is_not_packed(working_folder, tmp_path):
    save({"format": 2, "weights": {}}, tmp_path / "cleft.pt")
    with pytest.raises(BundleError, match=r"cleft.pt is not a classifier of this bundle"):
        package_bundle(working_folder, tmp_path / "cleft.pt", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_folder_without_configs_is_no_bundle(model_pt, tmp_path):
    with pytest.raises(BundleError, match=r"is no bundle, as it has no configs/metadata.json: `cleft init FOLDER`"):
        package_bundle(tmp_path, model_pt, tmp_path / "dist")


def test_the_readme_has_the_header_that_hubs_index(working_folder, model_pt, tmp_path, wheel):
    (working_folder / "docs/README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Card\n[data](datasets.md)\n")
    for own, body in ((None, "# Card\n[data](docs/datasets.md)"), ("# Ours\n[data](docs/x.md)\n", "# Ours\n")):
        if own:
            (working_folder / "README.md").write_text(own)
        archive = package_bundle(working_folder, model_pt, tmp_path, wheel=wheel)
        readme = zipfile.ZipFile(archive).read("cleft_bundle/README.md").decode()
        assert readme.startswith("---\nlicense: apache-2.0\n---\n")
        assert body in readme
        assert readme.count("---") == 2


def test_weights_that_the_zoo_does_not_take_are_listed(working_folder, model_pt, tmp_path, wheel, monkeypatch):
    monkeypatch.setattr(package, "LARGEST", model_pt.stat().st_size - 1)
    listed = []
    for number, url in enumerate(("", "https://example.org/weights/")):
        archive = package_bundle(working_folder, model_pt, tmp_path, wheel=wheel, weights_url=url)
        folder = tmp_path / str(number)
        zipfile.ZipFile(archive).extractall(folder)
        download_large_files(str(folder / "cleft_bundle"))  # what is there is checked, not fetched
        listed += yaml.safe_load((folder / "cleft_bundle" / "large_files.yml").read_text())["large_files"]
    assert [entry["path"] for entry in listed] == ["models/model.pt"] * 2
    assert [entry["url"] for entry in listed] == ["", "https://example.org/weights/models/model.pt"]
    (folder / "cleft_bundle/models/model.pt").write_bytes(b"another")
    with pytest.raises(HashCheckError):
        download_large_files(str(folder / "cleft_bundle"))


@pytest.mark.parametrize(
    "name", ["cleft_bundle.zip", "other-1.0-py3-none-any.whl", "cleft_bundle-0.0.1-py3-none-any.whl"]
)
def test_another_wheel_is_refused(name, working_folder, model_pt, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(BundleError, match="wheel"):
        package_bundle(working_folder, model_pt, tmp_path, wheel=tmp_path / name)


def test_what_is_pushed_to_a_hub_is_the_bundle_and_nothing_of_its_training(
    working_folder, model_pt, tmp_path, wheel, monkeypatch
):
    """MONAI's own command, its network call replaced."""
    pushed = {}

    class Hub:
        def __init__(self, token):
            pushed["token"] = token

        def create_repo(self, **repo):
            pushed["repo"] = repo

        def upload_folder(self, repo_id, folder_path):
            root = Path(folder_path)
            files = (path for path in root.rglob("*") if path.is_file())
            pushed["files"] = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
            return f"https://example.org/{repo_id}"

    monkeypatch.setattr(scripts.huggingface_hub, "HfApi", Hub)
    shutil.copy(ROOT / "docs" / "README.md", working_folder / "docs")
    shutil.copy(ROOT / "LICENSE", working_folder)
    archive = package_bundle(working_folder, model_pt, tmp_path, wheel=wheel)
    zipfile.ZipFile(archive).extractall(tmp_path / "unpacked")
    url = push_to_hf_hub("someone/cleft", "cleft_bundle", str(tmp_path / "unpacked"), token="t")  # noqa: S106
    assert url == "https://example.org/someone/cleft"
    assert pushed["repo"] == {"repo_id": "someone/cleft", "private": True, "exist_ok": True}
    assert pushed["files"].keys() == names(archive)
    assert not any(b"secret" in content for name, content in pushed["files"].items() if not name.endswith(".whl"))
    assert {name for name in pushed["files"] if name.startswith("models/")} == {"models/model.pt"}
    _, header, card = pushed["files"]["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(header) == {"tags": ["monai", "medical"], "library_name": "monai", "license": "apache-2.0"}
    assert "# Model card" in card
