"""The deployable classifier in forms that run without this package: TorchScript, torch.export, ONNX and ONNX int8.

Every file takes ``image`` [B, 3, H, W] with any B and gives ``pred`` [B, K]; ONNX has the output ``logits`` beside it,
TorchScript a method of this name. An image's scores do not depend on the others of its batch. A file carries as JSON
what :func:`describe` says, so that whoever has the file alone can prepare images for it and name its scores. Two more
forms, folders for transformers and timm, hold the image tower and the same JSON.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_onnx
from torch import nn

from cleft_bundle.checkpoints.int8 import quantize_rows
from cleft_bundle.errors import require_one_of
from cleft_bundle.extras import require
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.networks.backbones import value_fingerprint
from cleft_bundle.networks.classifiers.exported_classifier import METADATA
from cleft_bundle.networks.classifiers.tracing import example_images, trace
from cleft_bundle.packaging import hub, timm_folder
from cleft_bundle.packaging.places import check_place, written_whole

_BATCH = "batch"


def network_data_format(classifier: DeployedClassifier) -> dict[str, Any]:
    """Describe input and output as ``network_data_format`` of a bundle's metadata.json does.

    Source: https://docs.monai.io/en/stable/mb_specification.html
    """
    side = classifier.preprocessing["image_size"]
    names = enumerate(classifier.class_names)
    common = {"dtype": "float32", "is_patch_data": False}
    image = {
        **{"type": "image", "format": "magnitude", "modality": "radiograph", "num_channels": 3},
        **{"spatial_shape": [side, side], "value_range": []},
        "channel_def": {"0": "grey level, normalised", "1": "the same", "2": "the same"},
    }
    pred = {
        **{"type": "probabilities", "format": "classes", "num_channels": len(classifier.class_names)},
        **{"spatial_shape": [], "value_range": [0, 1]},
        "channel_def": {str(index): name for index, name in names},
    }
    return {"inputs": {"image": image | common}, "outputs": {"pred": pred | common}}


def describe(classifier: DeployedClassifier) -> dict[str, Any]:
    """Description of an exported file, as JSON-able values.

    Returns:
        the classifier's settings without the architecture of its image tower (``class_names``, ``task``,
        ``preprocessing`` and whatever else decides about scores), ``calibration`` (``temperature`` and ``bias``),
        ``network_data_format``, and the ``fingerprint`` of the weights, which all forms of one classifier share.
    """
    settings = {key: value for key, value in classifier.settings.items() if key != "image_encoder"}
    weights = ((name, value) for name, value in classifier.state_dict().items() if name != "_extra_state")
    return {
        **settings,
        "calibration": {"temperature": float(classifier.temperature), "bias": classifier.bias.tolist()},
        "network_data_format": network_data_format(classifier),
        "fingerprint": value_fingerprint(weights),
    }


def export_torchscript(classifier: DeployedClassifier, path: Path) -> None:
    """Trace the classifier; :func:`monai.data.load_net_with_metadata` reads the file with its description.

    Its extra file ``inference.json`` is a config for programs that have nothing but this file, as MONAI Deploy's
    ``MonaiBundleInferenceOperator``: the transforms and the inferer, which need no ``model.pt``.
    """
    config = {
        "imports": ["$import cleft_bundle"],
        "preprocessing": {"_target_": "Compose", "transforms": classifier.preprocessing.get("transforms", [])},
        "inferer": {"_target_": "SimpleInferer"},
    }
    files = {"inference.json": json.dumps(config).encode()}
    save_net_with_metadata(trace(classifier), str(path), meta_values=describe(classifier), more_extra_files=files)


def export_program(classifier: DeployedClassifier, path: Path) -> None:
    """Write what torch.export makes of the classifier; the description is its extra file ``metadata.json``."""
    shapes = {"image": {0: torch.export.Dim(_BATCH)}}
    with torch.no_grad():
        program = torch.export.export(classifier, (example_images(classifier),), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={METADATA: json.dumps(describe(classifier))})


def export_onnx(classifier: DeployedClassifier, path: Path) -> None:
    """Write an ONNX model; the description is its metadata property ``metadata.json``.

    Raises:
        BundleError: where the packages of the extra ``onnx`` are missing.
    """
    onnx = require("onnx", "onnx")
    require("onnxscript", "onnx")  # PyTorch's exporter is written in it
    model = convert_to_onnx(
        _WithLogits(classifier),
        [example_images(classifier)],
        input_names=["image"],
        output_names=["pred", "logits"],
        use_trace=True,  # or MONAI drops the arguments that follow
        dynamo=True,
        dynamic_shapes={"image": {0: _BATCH}},
        verbose=False,
    )
    onnx.helper.set_model_props(model, {METADATA: json.dumps(describe(classifier))})
    onnx.save(model, path)


def export_onnx_int8(classifier: DeployedClassifier, path: Path) -> None:
    """Write an ONNX model whose matrix products have weights and activations of 8 bits.

    Each output channel of weights and each token of activations has a scale of its own, found as it comes, so that no
    images are needed to calibrate, and none shares a scale with another: see
    :func:`cleft_bundle.checkpoints.int8.quantize_rows`.

    Raises:
        BundleError: where the packages of the extra ``onnx`` are missing.
    """
    onnx = require("onnx", "onnx")
    quantization = require("onnxruntime.quantization", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder, "plain.onnx"), Path(folder, "prepared.onnx")
        export_onnx(classifier, plain)
        quantization.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        model = onnx.shape_inference.infer_shapes(onnx.load(prepared))
    onnx.save(quantize_rows(model), path)


def export_transformers(classifier: DeployedClassifier, path: Path) -> None:
    """Write a folder for Hugging Face's transformers, see :mod:`cleft_bundle.packaging.hub`."""
    hub.export_transformers(classifier, path, describe(classifier))


def export_timm(classifier: DeployedClassifier, path: Path) -> None:
    """Write a folder for timm, see :mod:`cleft_bundle.packaging.timm_folder`."""
    timm_folder.export_timm(classifier, path, describe(classifier))


#: Form to the end of the name of its file or folder, and the function that writes it.
FORMS: dict[str, tuple[str, Callable[[DeployedClassifier, Path], None]]] = {
    "torchscript": (".ts", export_torchscript),
    "torch_export": (".pt2", export_program),
    "onnx": (".onnx", export_onnx),
    "onnx_int8": ("_int8.onnx", export_onnx_int8),
    "transformers": ("_transformers", export_transformers),
    "timm": ("_timm", export_timm),
}
#: What is written where nobody names a form: a file of the whole classifier each.
FILES = ("torchscript", "torch_export", "onnx", "onnx_int8")


def export_classifier(classifier: DeployedClassifier, stem: str | Path, forms: Sequence[str] = FILES) -> list[Path]:
    """Write a classifier in some forms.

    Args:
        classifier: in evaluation mode.
        stem: path of the files without their suffix, such as ``models/model``.
        forms: of :data:`FORMS`.

    Returns:
        the files and folders, in the order of ``forms``. An earlier export of the same name is replaced.

    Raises:
        BundleError: where a form is unknown, its packages are missing or it cannot hold the classifier, and where a
            folder of the same name is no export.
    """
    for form in forms:
        require_one_of("forms", form, FORMS)
        check_place(Path(f"{stem}{FORMS[form][0]}"))
    written = []
    for form in forms:
        suffix, write = FORMS[form]
        path = Path(f"{stem}{suffix}")
        with written_whole(path) as place:
            write(classifier, place)
        written.append(path)
    return written


class _WithLogits(nn.Module):
    """A classifier that gives its logits beside its probabilities, which cannot tell apart what is next to 1."""

    def __init__(self, classifier: DeployedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.classifier.logits(image)
        return self.classifier.calibrated(logits), logits
