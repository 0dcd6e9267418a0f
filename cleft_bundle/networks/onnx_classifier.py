"""The exported classifier under ONNX Runtime, in place of the PyTorch one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.extras import require

#: The property of an ONNX file that describes it.
METADATA = "metadata.json"


class OnnxClassifier(nn.Module):
    """A classifier in an ONNX file, run by ONNX Runtime on the CPU.

    It has the attributes of :class:`cleft_bundle.networks.ZeroShotClassifier` that inference asks for; they come out of
    the file's metadata.

    Args:
        path: a file that :func:`cleft_bundle.checkpoints.export_classifier` wrote.
        num_threads: threads of one image's computation; None: as many as PyTorch would take.

    Raises:
        BundleError: where the packages of the extra ``onnx`` are missing, the file does not exist, is no ONNX model, or
            says nothing about its classes and preprocessing.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        super().__init__()
        runtime = require("onnxruntime", "onnx")
        if not Path(path).is_file():
            raise BundleError(f"{path} does not exist: python scripts/export.py writes it, or pass --model_path")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads or torch.get_num_threads()
        # a thread that spins while it waits takes a core from the processes that read
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _failures(runtime) as error:
            raise BundleError(f"{path} is no ONNX model: {' '.join(str(error).split())[:200]}") from error
        properties = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in properties:
            raise BundleError(f"{path} does not describe its classes and preprocessing: scripts/export.py writes such")
        self.settings: dict[str, Any] = json.loads(properties[METADATA])
        self.class_names: list[str] = self.settings["class_names"]
        self.task: str = self.settings["task"]
        self.preprocessing: dict[str, Any] = self.settings["preprocessing"]
        self.operating_point: dict[str, Any] = self.settings["operating_point"]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images.

        Args:
            image: float tensor [B, 3, H, W], preprocessed as :attr:`preprocessing` says.

        Returns:
            probabilities [B, K] in the order of :attr:`class_names`, on the CPU.
        """
        (pred,) = self.session.run(["pred"], {"image": image.detach().cpu().numpy()})
        return torch.from_numpy(pred)


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot load."""
    state = runtime.capi.onnxruntime_pybind11_state
    return state.InvalidProtobuf, state.InvalidGraph, state.Fail
