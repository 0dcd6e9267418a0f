"""``cleft export``: what was trained, for other runtimes and libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cleft_bundle.checkpoints import load_deployed
from cleft_bundle.commands.configs import run_with
from cleft_bundle.errors import UsageError, nearest, require_one_of
from cleft_bundle.literals import literal
from cleft_bundle.packaging import FILES, FORMS, export_classifier

#: The form that is made of ``cleft.pt`` and its config; all others are made of a classifier.
_DUAL_ENCODER = "dual_encoder"
_OPTIONS = ("model_path", "out", "forms", "checkpoint", "config_file", "text")


def export(
    model_path: str = "models/model.pt",
    out: str | None = None,
    forms: Sequence[str] = FILES,
    checkpoint: str = "models/cleft.pt",
    config_file: Sequence[str] = ("configs/train.json",),
    text: str = "adapter",
    **override: Any,
) -> list[str]:
    """Write a classifier as files for other runtimes, or what was trained as folders for transformers or timm.

    cleft export --model_path models/model.pt --forms torchscript,onnx

    cleft export --forms dual_encoder --checkpoint models/cleft.pt --config_file configs/train.json

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt.
        out: path of the files without their suffix; by default that of the classifier, or of the checkpoint.
        forms: one or several of torchscript, torch_export, onnx, onnx_int8, transformers, timm, dual_encoder; by
            default the first four, which are files.
        checkpoint: for dual_encoder, both towers for transformers: the trained network, a cleft.pt.
        config_file: for dual_encoder, the training's config and its overlays, a,b or ['a','b'].
        text: for dual_encoder, adapter (what was trained of the language model, and the model's name) or merged (the
            whole language model).
        override: for dual_encoder, values of the config, such as --image_backbone, --text_backbone or --text_source,
            the id of the language model on its hub.

    Returns:
        a line for each file or folder.

    Raises:
        BundleError: the file is no classifier, the config or the checkpoint does not fit, a form is unknown or cannot
            hold the network, or its packages are missing.
    """
    for form in forms:
        require_one_of("forms", form, (*FORMS, _DUAL_ENCODER))
    written = []
    if _DUAL_ENCODER in forms:
        path = Path(f"{out or Path(checkpoint).with_suffix('')}_{_DUAL_ENCODER}")
        paths = {"checkpoint": literal(checkpoint), "dual_encoder_path": literal(str(path))}
        run_with("export_dual_encoder.json", "run", config_file, {**override, **paths, "text_form": text})
        written.append(path)
    elif override:
        option = next(iter(override))
        raise UsageError(f"cleft export: there is no option --{option}{nearest(option, _OPTIONS)}")
    if others := [form for form in forms if form != _DUAL_ENCODER]:
        written += export_classifier(load_deployed(model_path), out or Path(model_path).with_suffix(""), others)
    return [f"{path}: {sum(file.stat().st_size for file in (path, *path.rglob('*'))) / 1e6:.1f} MB" for path in written]
