import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from cleft_bundle.commands.init import init
from cleft_bundle.errors import BundleError


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
def test_the_wheel_alone_makes_a_bundle_that_trains_and_scores(root, tmp_path):
    """pip install of the wheel into an environment of its own (which sees the dependencies of this one)."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    for name in ("cleft_bundle", "configs", "docs"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(next(tmp_path.glob("*.whl")))], check=True, capture_output=True)
    # dependencies of this environment, but not its editable install
    outer = [Path(path) for path in sys.path if path.endswith("site-packages")]
    for entry in (child for path in outer for child in path.iterdir()):
        if "cleft_bundle" not in entry.name and not (site / entry.name).exists() and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words, cwd=tmp_path):
        done = subprocess.run(
            [str(tmp_path / "venv" / "bin" / "python"), "-W", "ignore", *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert str(site) in run("-c", "import cleft_bundle; print(cleft_bundle.__file__)")
    run("-m", "cleft_bundle", "init", "new")
    tiny = ["--image_backbone#num_hidden_layers", "1", "--image_backbone#hidden_size", "48", "--image_size", "28"]
    tiny += ["--image_backbone#image_size", "28", "--phantom_patients", "30", "--epochs", "1", "--val_interval", "1"]
    tiny += ["--batch_size", "8", "--num_workers", "0", "--tracking_uri", ""]
    run("-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json", *tiny, cwd=tmp_path / "new")
    assert (tmp_path / "new" / "models" / "model.pt").is_file()
    images = str(next((tmp_path / "new" / "data").rglob("*.dcm")).parent)
    scoring = ["-m", "monai.bundle", "run", "--config_file", "new/configs/inference.json", "--dataset_dir", images]
    run(*scoring, "--num_workers", "0")
    assert (tmp_path / "new" / "eval" / "predictions.csv").is_file()
