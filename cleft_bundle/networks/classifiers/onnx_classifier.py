"""The exported classifier under ONNX Runtime, in place of the PyTorch one."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import torch

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.extras import require
from cleft_bundle.networks.classifiers.exported_classifier import METADATA, ExportedClassifier


class OnnxClassifier(ExportedClassifier):
    """A classifier in an ONNX file, run by ONNX Runtime on the CPU.

    An image's scores are the same whatever stands beside it in a batch. Where a file finds one scale for all images of
    a batch (ONNX's DynamicQuantizeLinear, as int8 files of 0.6.0 do), its images go through one by one.

    Args:
        path: a file that :func:`cleft_bundle.packaging.export_classifier` wrote.
        num_threads: threads of one image's computation; None: as many as PyTorch would take.

    Raises:
        BundleError: where the packages of the extra ``onnx`` are missing, the file does not exist, is no ONNX model, or
            says nothing about its classes and preprocessing.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        runtime = require("onnxruntime", "onnx")
        if not Path(path).is_file():
            raise BundleError(f"{path} does not exist: cleft export writes it, or pass --model_path")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads or torch.get_num_threads()
        # a thread that spins while it waits takes a core from the processes that read
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _failures(runtime) as error:
            raise BundleError(f"{path} is no ONNX model: {one_line(error)}") from error
        properties = session.get_modelmeta().custom_metadata_map
        super().__init__(path, json.loads(properties.get(METADATA, "{}")))
        self.session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._one_by_one = _mentions(path, b"DynamicQuantizeLinear")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images.

        Args:
            image: float tensor [B, 3, H, W], preprocessed as :attr:`preprocessing` says.

        Returns:
            probabilities [B, K] in the order of :attr:`class_names`, on the CPU.
        """
        return self._run("pred", image)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] on the CPU: files from 0.7.0 on have an output of this name."""
        return self._run("logits", image) if "logits" in self._outputs else super().logits(image)

    def _run(self, output: str, image: torch.Tensor) -> torch.Tensor:
        array = image.detach().cpu().numpy()
        parts = [array[n : n + 1] for n in range(len(array))] if self._one_by_one else [array]
        return torch.cat([torch.from_numpy(self.session.run([output], {"image": part})[0]) for part in parts])


def _mentions(path: str | Path, operator: bytes) -> bool:
    """Whether a file holds the name of an operator; without the package onnx, and without reading it into memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(operator) >= 0


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot load."""
    state = runtime.capi.onnxruntime_pybind11_state
    return state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.Fail
