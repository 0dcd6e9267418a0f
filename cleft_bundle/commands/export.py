"""``cleft export``: the classifier for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cleft_bundle.checkpoints import load_deployed
from cleft_bundle.packaging import FILES, export_classifier


def export(model_path: str = "models/model.pt", out: str | None = None, forms: Sequence[str] = FILES) -> list[str]:
    """Write a classifier as files for other runtimes, or as a folder for transformers or timm.

    cleft export --model_path models/model.pt --forms torchscript,onnx

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt.
        out: path of the files without their suffix; that of the classifier by default.
        forms: one or several of torchscript, torch_export, onnx, onnx_int8, transformers, timm; by default the four
            files.

    Returns:
        a line for each file or folder.

    Raises:
        BundleError: the file is no classifier, a form is unknown, or its packages are missing.
    """
    written = export_classifier(load_deployed(model_path), out or Path(model_path).with_suffix(""), forms)
    return [f"{path}: {sum(file.stat().st_size for file in (path, *path.rglob('*'))) / 1e6:.1f} MB" for path in written]
