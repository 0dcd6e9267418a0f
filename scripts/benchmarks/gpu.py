"""One GPU: the paper's step, its switches, feeding, resuming, exports and decoding."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata
from monai.transforms import LoadImage
from monai.utils import optional_import
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size import CONFIGS
from benchmarks.inference import NETWORKS, classifier_of
from benchmarks.reading import SIZE as PICTURE
from benchmarks.reading import SMALL as SMALL_PICTURE
from benchmarks.reading import write_picture
from benchmarks.steps import random_batch, seconds_of_steps
from cleft_bundle.commands.configs import read_config
from cleft_bundle.data import RadiographReader, phantoms
from cleft_bundle.data.dicom import gpu_decoding
from cleft_bundle.errors import BundleError, one_line, require_one_of
from cleft_bundle.files import save_text
from cleft_bundle.packaging import export_classifier

SCRIPTS = Path(__file__).resolve().parents[1]
SMALL = {
    **{"image_backbone#num_hidden_layers": 1, "image_backbone#hidden_size": 24, "image_backbone#image_size": 28},
    **{"image_size": 28, "text_backbone#n_embd": 32},
}


class AbsentError(Exception):
    """Something that a part needs is not on this machine."""


@dataclass
class Check:
    """Settings that the parts share, and the step that is measured.

    Args:
        device: that is measured.
        config: of the training.
        batch_size: images of a step.
        tokens: of a caption.
        repeats: steps that are timed.
        small: tiny networks.
        folder: for files, empty at first.
    """

    device: torch.device
    config: ConfigParser
    batch_size: int
    tokens: int
    repeats: int
    small: bool
    folder: Path

    def step(self, **options: Any) -> dict[str, float]:
        """Median time of a step, images per second, and the peak of the device's memory."""
        batch = random_batch(self.config, self.batch_size, self.tokens, seed=0)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = median(seconds_of_steps(self.config, [batch] * (self.repeats + 2), **options)[2:])
        found = {"seconds": seconds, "images_per_second": self.batch_size / seconds}
        if self.device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return found


def gpu(
    batch_size: int = 72,
    tokens: int = 20,
    repeats: int = 5,
    minutes: float = 8.0,
    small: bool = False,
    parts: Sequence[str] = (),
    out: str = "gpu.json",
) -> None:
    """Measure each part in turn and write one JSON, anew after each: what is absent, fails or has no time left says so.

    Args:
        batch_size: images of the full-size step, which has random weights and needs no download.
        tokens: of a caption.
        repeats: steps, batches or files that are timed, after two that are not.
        minutes: no part begins later than this.
        small: tiny networks, on the processor where there is no GPU: to see that it runs.
        parts: some of step, switches, feeding, resume, adalora, exports and decoding. None: all.
        out: path of the JSON.

    Raises:
        BundleError: where there is no CUDA device, unless ``small``, or a part is unknown.
    """
    if not torch.cuda.is_available() and not small:
        raise BundleError("gpu: there is no CUDA device; --small true runs all parts small, on the processor")
    for name in parts:
        require_one_of("parts", name, PARTS)
    start, found = time.monotonic(), _machine()
    config = read_config(CONFIGS[:1], SMALL) if small else read_config(CONFIGS)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(found.pop("device"), config, batch_size, tokens, repeats, small, Path(folder))
        for name, part in ((name, PARTS[name]) for name in parts or PARTS):
            if time.monotonic() - start > 60 * minutes:
                found[name] = {"skipped": f"{minutes:g} minutes had passed"}
            else:
                found[name] = _tried(part, check)
            print(f"{name}: {json.dumps(found[name])}", flush=True)
            save_text(json.dumps(found, indent=2) + "\n", out)


def _machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else "processor"
    return {"device": torch.device("cuda" if cuda else "cpu"), "name": name, "torch": torch.__version__}


def _tried(part: Callable[[Check], dict[str, Any]], check: Check) -> dict[str, Any]:
    start = time.monotonic()
    try:
        found = part(check)
    except AbsentError as error:
        return {"skipped": str(error)}
    except Exception as error:  # the parts behind it are measured all the same
        found = {"failed": f"{type(error).__name__}: {one_line(error)}"}
    return found | {"took_seconds": round(time.monotonic() - start, 1)}


def _step(check: Check) -> dict[str, Any]:
    """The training step as the config has it, and which share of a large matrix product's rate it reaches."""
    found: dict[str, Any] = check.step(autocast="auto")
    with FlopCounterMode(display=False) as counter:
        seconds_of_steps(check.config, [random_batch(check.config, check.batch_size, check.tokens, seed=0)])
    rate = counter.get_total_flops() / found["seconds"]
    return found | {"tflops_per_second": rate / 1e12, "share_of_matrix_product": rate / _product_rate(check)}


def _product_rate(check: Check) -> float:
    """Floating-point operations per second of a square matrix product, bfloat16 on a GPU."""
    cuda = check.device.type == "cuda"
    side = 256 if check.small else 8192
    matrix = torch.randn(side, side, device=check.device, dtype=torch.bfloat16 if cuda else torch.float32)
    times = []
    for _ in range(check.repeats + 2):
        start = time.perf_counter()
        for _ in range(5):
            matrix @ matrix
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 5 * 2 * side**3 / min(times)


def _switches(check: Check) -> dict[str, Any]:
    """The same step with each switch the other way; compiled towers come last, as they stay so."""
    chunk = max(1, check.batch_size // 3)
    return {
        "as it is": check.step(autocast="auto"),
        "autocast null, without TF32": check.step(autocast=None),
        f"chunk_size {chunk}": check.step(autocast="auto", chunk_size=chunk),
        "max_grad_norm 1": check.step(autocast="auto", max_grad_norm=1.0),
        "compile true": check.step(autocast="auto", compiled=True),
    }


def _feeding(check: Check) -> dict[str, Any]:
    """Images per second that a store and the loader give, which the step's must not exceed."""
    patients = 10 if check.small else 150
    data = phantoms.chest(str(check.folder), patients=patients)
    values: dict[str, Any] = {"dataset_dir": data, "cache": "store", "cache_dir": str(check.folder / "cache")}
    values |= {"batch_size": 8 if check.small else check.batch_size, "image_size": check.config.get("image_size")}
    config = read_config(CONFIGS[:1], values | (SMALL if check.small else {}))
    loader = config.get_parsed_content("train#dataloader")
    rates = []
    for _ in range(3):
        start, images = time.perf_counter(), 0
        for batch in islice(loader, 50):
            images += len(batch["image"].to(check.device, non_blocking=True))
        rates.append(images / (time.perf_counter() - start))
    return {"workers": loader.num_workers, "first_epoch": rates[0], "images_per_second": max(rates[1:])}


def _resume(check: Check, *options: str) -> dict[str, Any]:
    """A training that is killed and goes on beside one that is not: how many values differ."""
    few = ("--kills", "1", "--epochs", "2", "--patients", "40") if check.small else ("--kills", "3", "--epochs", "6")
    words = [sys.executable, str(SCRIPTS / "interrupt_training.py"), *few, *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    compared = re.search(r"values compared (\d+), of which differ (\d+)", done.stdout)
    if compared is None:
        raise BundleError(f"the training ended badly: {one_line(done.stderr[-300:])}")
    return {"values": int(compared[1]), "differ": int(compared[2])}


def _resume_adalora(check: Check) -> dict[str, Any]:
    return _resume(check, "--peft", "adalora")


def _exports(check: Check) -> dict[str, Any]:
    """Largest difference of a score to eager, and images per second, of exported forms on the device."""
    side = 28 if check.small else 224
    classifier = classifier_of(NETWORKS["tiny" if check.small else "ViT-B/14"], side).to(check.device).eval()
    images = torch.randn(2 if check.small else 16, 3, side, side, device=check.device)
    forms: dict[str, Callable[[torch.Tensor], Any]] = {"eager": classifier}
    found: dict[str, Any] = {}
    for form, load in {"torchscript": _torchscript, "onnx": _onnx}.items():
        try:
            (path,) = export_classifier(classifier.cpu(), check.folder / "exported", [form])
            forms[form] = load(path, check.device)
        except (AbsentError, BundleError) as error:
            found[form] = {"skipped": str(error)}
    classifier.to(check.device)
    with torch.no_grad():
        expected = classifier(images)
        for form, score in forms.items():
            times = []
            for _ in range(check.repeats + 2):
                start = time.perf_counter()
                scores = torch.as_tensor(score(images)).to(expected)
                times.append(time.perf_counter() - start)
            difference = float((scores - expected).abs().max())  # which waits for the device
            found[form] = {"difference": difference, "images_per_second": len(images) / median(times[2:])}
    return found


def _torchscript(path: Path, device: torch.device) -> Callable[[torch.Tensor], Any]:
    network = load_net_with_metadata(str(path))[0].to(device)
    return lambda images: network(images).cpu()


def _onnx(path: Path, device: torch.device) -> Callable[[torch.Tensor], Any]:
    runtime, found = optional_import("onnxruntime")
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if not found or provider not in runtime.get_available_providers():
        raise AbsentError(f"onnxruntime has no {provider} here (onnxruntime-gpu has CUDA's)")
    session = runtime.InferenceSession(str(path), providers=[provider])
    return lambda images: session.run(["pred"], {"image": images.cpu().numpy()})[0]


def _decoding(check: Check) -> dict[str, Any]:
    """Mammograms per second in JPEG 2000, through the whole reader, by nvImageCodec and without it."""
    ((_, path),) = write_picture(check.folder, SMALL_PICTURE if check.small else PICTURE, ["JPEG 2000 lossless"], 0)
    found: dict[str, Any] = {}
    for name in ("processor", "nvImageCodec"):
        if name != "processor" and not gpu_decoding.available():
            found[name] = {"skipped": "nvImageCodec and a GPU for it are not here"}
            continue
        hidden = patch.object(gpu_decoding, "available", lambda: False) if name == "processor" else nullcontext()
        times = []
        with hidden:
            for _ in range(check.repeats + 1):
                start = time.perf_counter()
                _, meta = LoadImage(RadiographReader(), image_only=False)(path)
                times.append(time.perf_counter() - start)
        found[name] = {"files_per_second": 1 / median(times[1:]), "decoder": meta["decoder"]}
    return found


PARTS = {
    "step": _step,
    "switches": _switches,
    "feeding": _feeding,
    "resume": _resume,
    "adalora": _resume_adalora,
    "exports": _exports,
    "decoding": _decoding,
}
