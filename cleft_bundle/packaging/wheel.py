"""This package as the wheel that goes along with a bundle, so that pip alone makes the bundle run."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

import cleft_bundle
from cleft_bundle.errors import BundleError

NAME = "cleft_bundle"
#: What a wheel is built of, in a checkout.
SOURCES = ("cleft_bundle", "configs", "docs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
_BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_EPOCH = "315532800"  # 1980, the first year of zip: the same files give the same wheel
_OF_THE_MACHINE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def write_wheel(out_dir: str | Path) -> Path:
    """Write the wheel of the package that is running: built in a checkout, put together again where pip installed one.

    Args:
        out_dir: an existing folder.

    Returns:
        the wheel.

    Raises:
        BundleError: where it can be neither built nor put together.

    Source: Binary distribution format, https://packaging.python.org/specifications/binary-distribution-format/
    """
    package = Path(cleft_bundle.__file__).resolve().parent
    if all((package.parent / name).exists() for name in SOURCES):
        return _built(package.parent, Path(out_dir).resolve())
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        installed = None
    if installed is None or Path(str(installed.locate_file(NAME))).resolve() != package:
        raise BundleError(f"the wheel of {package} can't be made, as pip has not installed it: pass --wheel FILE")
    return _put_together(installed, Path(out_dir))


def check_wheel(path: str | Path) -> Path:
    """A wheel that somebody names.

    Raises:
        BundleError: where it is no wheel of this package in this version.
    """
    wheel = Path(path)
    try:
        name, version, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise BundleError(f"{path} is not called as a wheel is") from error
    if name != "cleft-bundle" or str(version) != cleft_bundle.__version__ or not zipfile.is_zipfile(wheel):
        raise BundleError(f"{path} is no wheel of cleft_bundle {cleft_bundle.__version__}")
    return wheel


def _built(checkout: Path, out_dir: Path) -> Path:
    """Build in a copy: setuptools leaves its folders beside the sources."""
    with tempfile.TemporaryDirectory() as folder:
        for name in SOURCES:
            if (checkout / name).is_dir():
                left_out = ("__pycache__", "images") if name == "docs" else ("__pycache__",)
                shutil.copytree(checkout / name, Path(folder, name), ignore=shutil.ignore_patterns(*left_out))
            else:
                shutil.copy(checkout / name, folder)
        done = subprocess.run(  # noqa: S603 - this Python's own setuptools
            [sys.executable, "-c", _BUILD, str(out_dir)],
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["setuptools gives no reason"]
        raise BundleError(f"the wheel can't be built: {reason[0]}; pass --wheel FILE")
    return next(out_dir.glob(f"{NAME}-{cleft_bundle.__version__}-*.whl"))


def _put_together(installed: Distribution, out_dir: Path) -> Path:
    """What pip took apart, but for what it added."""
    wheel = out_dir / f"{NAME}-{installed.version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)

        files = {path.as_posix(): path for path in installed.files or ()}
        for name, path in sorted(files.items()):
            if ".." in path.parts or "__pycache__" in path.parts or path.name in _OF_THE_MACHINE:
                continue
            content = Path(str(path.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
            add(name, content)
        of_record = f"{NAME}-{installed.version}.dist-info/RECORD"
        add(of_record, "".join([*record, f"{of_record},,\n"]).encode())
    return wheel
