"""``cleft package``: the bundle for another machine."""

from __future__ import annotations

from collections.abc import Sequence

from cleft_bundle.packaging import package_bundle


def package(
    model_path: str = "models/model.pt",
    out_dir: str = "dist",
    forms: Sequence[str] = (),
    bundle: str = ".",
    wheel: str | None = None,
    weights_url: str = "",
) -> str:
    """Pack a classifier with configs, documents and this package's wheel into a zip that unpacks into a MONAI bundle.

    cleft package --model_path models/model.pt --out_dir dist

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt; in the zip it is models/model.pt.
        out_dir: folder of the zip.
        forms: exported files beside the classifier that go along, of torchscript, torch_export, onnx, onnx_int8.
        bundle: the bundle's folder, with configs and docs.
        wheel: the wheel of this package that goes along; by default it is made of what is installed.
        weights_url: address of the folder from which files above 25 MB will be had: it stands in large_files.yml.

    Returns:
        the zip.

    Raises:
        BundleError: what is no classifier or no bundle, or is missing.
    """
    return str(package_bundle(bundle, model_path, out_dir, forms, wheel=wheel, weights_url=weights_url))
