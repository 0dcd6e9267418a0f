import json
import zipfile

import pytest

from cleft_bundle.commands.init import init
from cleft_bundle.errors import BundleError
from tests.installed import install


def test_what_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(BundleError, match="exists and is not an empty folder"):
            init(str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_it_is_the_bundle_without_its_history(root, tmp_path):
    assert "run training" in init(str(tmp_path / "new"))
    made = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    wanted = {path.relative_to(root).as_posix() for path in (root / "configs").rglob("*.json")}
    assert made >= wanted | {"LICENSE", "metadata.json", "configs/logging.conf", "docs/README.md"}
    assert json.loads((tmp_path / "new" / "metadata.json").read_text())["version"]


@pytest.mark.slow
def test_the_wheel_alone_makes_a_bundle_that_trains_and_scores(elsewhere, tmp_path):
    where = elsewhere.run("-c", "import cleft_bundle; print(cleft_bundle.__file__)", cwd=tmp_path).stdout
    assert where.strip() == str(elsewhere.site / "cleft_bundle" / "__init__.py")
    elsewhere.run("-m", "cleft_bundle", "init", "new", cwd=tmp_path)
    bundle = tmp_path / "new"
    tiny = ["--image_backbone#num_hidden_layers", "1", "--image_backbone#hidden_size", "48", "--image_size", "28"]
    tiny += ["--image_backbone#image_size", "28", "--phantom_patients", "30", "--epochs", "1", "--val_interval", "1"]
    tiny += ["--batch_size", "8", "--num_workers", "0", "--tracking_uri", ""]
    elsewhere.run("-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json", *tiny, cwd=bundle)
    assert (bundle / "models" / "model.pt").is_file()
    images = str(next((bundle / "data").rglob("*.dcm")).parent)
    scoring = ["-m", "monai.bundle", "run", "--config_file", "new/configs/inference.json", "--dataset_dir", images]
    elsewhere.run(*scoring, "--num_workers", "0", cwd=tmp_path)
    assert (bundle / "eval" / "predictions.csv").is_file()
    packed = elsewhere.run("-m", "cleft_bundle", "package", "--out_dir", "../dist", cwd=bundle).stdout.strip()
    with zipfile.ZipFile(bundle / packed) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".whl")]
        archive.extract(name, tmp_path)
    again = install(tmp_path / name, tmp_path / "again")
    assert "usage: cleft" in again.run("-m", "cleft_bundle", "--help", cwd=tmp_path).stdout
    assert again.run("-c", "import cleft_bundle.commands.init as i; print(i.shipped())", cwd=tmp_path).stdout
