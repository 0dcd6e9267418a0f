"""Pack models/model.pt with its configs and documents into one zip that unpacks into a MONAI bundle.

python scripts/package_bundle.py --model_path models/model.pt --out_dir dist
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import fire

from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import package_bundle

ROOT = Path(__file__).resolve().parents[1]


def main(model_path: str = "models/model.pt", out_dir: str = "dist", forms: str | Sequence[str] = ()) -> None:
    """Write the zip with its SHA-256 manifest and bill of materials.

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt; in the zip it is models/model.pt.
        out_dir: folder of the zip.
        forms: exported files beside the classifier that go along, of torchscript, torch_export, onnx, onnx_int8.
    """
    chosen = [forms] if isinstance(forms, str) else list(forms)
    print(package_bundle(ROOT, model_path, out_dir, chosen))


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
