"""``cleft init``: a bundle folder of one's own, out of what pip has installed."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import cleft_bundle
from cleft_bundle.config_files import shipped
from cleft_bundle.errors import BundleError


def init(folder: str) -> str:
    """Write a bundle folder that trains: configs, prompts, the default tokenizer, model card and licence.

    Args:
        folder: to be made, or empty.

    Returns:
        what to run next.

    Raises:
        BundleError: where the folder holds something, or cannot be made.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BundleError(f"init: {folder} exists and is not an empty folder")
    source = shipped()
    try:
        for name in ("configs", "docs"):
            shutil.copytree(source / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
        (root / "models").mkdir()
        shutil.copy(root / "configs" / "metadata.json", root / "metadata.json")
        shutil.copy(_license(), root / "LICENSE")
    except OSError as error:
        raise BundleError(f"init: {folder} cannot be written: {error.strerror}") from error
    return (
        f"{root} is a bundle of cleft_bundle {cleft_bundle.__version__}. Next, from within it:\n"
        "  python -m monai.bundle run training --config_file configs/train.json"
    )


def _license() -> Path:
    beside = shipped() / "LICENSE"
    if beside.is_file():
        return beside
    return Path(next(file for file in metadata.files("cleft_bundle") or () if file.name == "LICENSE").locate())
