"""Write a classifier as TorchScript, torch.export, ONNX and ONNX int8, each with its description inside.

python scripts/export.py --model_path models/model.pt --forms torchscript,onnx
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import fire

from cleft_bundle.checkpoints import load_deployed
from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import FILES, export_classifier


def main(model_path: str = "models/model.pt", out: str | None = None, forms: str | Sequence[str] = FILES) -> None:
    """Export a classifier.

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt.
        out: path of the files without their suffix; that of the classifier by default.
        forms: one or several of torchscript, torch_export, onnx, onnx_int8, transformers, timm.
    """
    chosen = [forms] if isinstance(forms, str) else list(forms)
    for path in export_classifier(load_deployed(model_path), out or Path(model_path).with_suffix(""), chosen):
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")))
        print(f"{path}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
