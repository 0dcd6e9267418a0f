"""Cost of serving a classifier: from DICOM to score and for the network alone, in each form, by turns in one run.

Each form and batch size has a process of its own, which serves by the components of configs/inference.json. The
processes take turns, and in each turn one measures its network, its reading and both together, so that what is
compared met the same machine within seconds.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from benchmarks.memory import megabytes
from cleft_bundle.checkpoints import save
from cleft_bundle.data import phantoms
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from cleft_bundle.packaging import FORMS, export_classifier

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIT = {"model_type": "dinov2", "num_hidden_layers": 12, "patch_size": 14, "image_size": 518}
NETWORKS: dict[str, dict[str, Any]] = {
    "ViT-S/14": VIT | {"hidden_size": 384, "num_attention_heads": 6},
    "ViT-B/14": VIT | {"hidden_size": 768, "num_attention_heads": 12},
    "tiny": VIT | {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1},  # to see that all of it runs
}
SERVED = ("eager", "torchscript", "onnx", "onnx_int8")
CLASSES = ("edema", "pleural effusion", "no finding")
COLUMNS = (
    *("network", "form", "batch", "network, images/s", "p50, ms", "p95, ms", "images/s / eager", "reading, images/s"),
    *("pipeline, images/s", "p50, ms", "p95, ms", "pipeline / slower part", "pipeline / eager", "peak MB"),
)

Turn = dict[str, Any]  # network: seconds of each batch; reading: images/s; pipeline: rate in images/s, latencies in s


def inference(
    dataset_dir: str | None = None,
    networks: Sequence[str] = ("ViT-S/14", "ViT-B/14"),
    forms: Sequence[str] = SERVED,
    batch_sizes: Sequence[int] = (1, 16),
    image_size: int = 224,
    images: int = 80,
    rounds: int = 4,
    out: str | None = None,
) -> None:
    """Serve random weights in all forms and print a table.

    PyTorch's threads wait as docs/inference.md advises (``OMP_WAIT_POLICY``), unless the environment has it otherwise.

    Latencies are those of one batch. Those of the pipeline are the times between the ends of two batches, with the
    reading that goes on meanwhile. The slower part is reading alone or the network alone. Rates are medians of the
    turns, and ratios medians of each turn's ratio: to eager's turn of the same round, or within the turn. Reading and
    pipeline are timed from their start, when no process reads yet, to their end. Peak memory is that of the serving
    process since its start; processes that read are not counted.

    Args:
        dataset_dir: folder of DICOM files; chest phantoms by default.
        networks: of ViT-S/14, ViT-B/14 and tiny.
        forms: of eager, torchscript, onnx and onnx_int8; the ratios need eager.
        batch_sizes: numbers of images of a batch.
        image_size: side of the prepared images.
        images: number of images that each process reads; the files of the folder are repeated.
        rounds: turns of each process, after one turn of its network alone that does not count.
        out: file to write the table to as well.

    Raises:
        BundleError: where a network or form is unknown, or the folder holds no file.
    """
    for name in networks:
        require_one_of("networks", name, NETWORKS)
    for form in forms:
        require_one_of("forms", form, SERVED)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    with tempfile.TemporaryDirectory() as folder:
        source = dataset_dir or phantoms.chest(f"{folder}/phantoms", patients=min(60, max(5, images // 2)))
        listed = _list(source, Path(folder, "images"), images)
        for name in networks:
            files = _export(NETWORKS[name], image_size, Path(folder, name.replace("/", "_")), forms)
            for batch_size in batch_sizes:
                turns, memory = _by_turns(files, listed, batch_size, rounds)
                for form in turns:
                    cells = _figures(turns[form], turns.get("eager"), batch_size)
                    lines.append(f"| {' | '.join([name, form, str(batch_size), *cells, str(memory[form])])} |")
                print("\n".join(lines[-len(turns) :]), file=sys.stderr)
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _list(source: str, folder: Path, count: int) -> str:
    """A folder of links to the files of another, each as often as it takes."""
    files = sorted(path for path in Path(source).rglob("*.dcm"))
    if not files:
        raise BundleError(f"{source}: no DICOM file below it")
    folder.mkdir()
    for number, file in zip(range(count), itertools.cycle(files)):
        (folder / f"{number:05}.dcm").symlink_to(file.resolve())
    return str(folder)


def _export(backbone: dict[str, Any], side: int, folder: Path, forms: Sequence[str]) -> dict[str, str]:
    """Write a classifier of random weights in all forms: form to file. In a process of its own, for its memory."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_write, args=(backbone, side, folder, forms))
    process.start()
    process.join()
    if process.exitcode:
        raise BundleError("the classifier could not be exported")
    suffixes = {"eager": ".pt"} | {form: suffix for form, (suffix, _) in FORMS.items()}
    return {form: f"{folder}/model{suffixes[form]}" for form in forms}


def classifier_of(backbone: dict[str, Any], side: int) -> ZeroShotClassifier:
    """A classifier of random weights, for images of ``side`` pixels."""
    image = {"keys": "image"}
    transforms = [
        {"_target_": "LoadImaged", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}} | image,
        {"_target_": "EnsureChannelFirstd", "channel_dim": "no_channel"} | image,
        {"_target_": "Resized", "spatial_size": side, "size_mode": "longest", "mode": "area"} | image,
        {"_target_": "SpatialPadd", "spatial_size": [side, side]} | image,
        {"_target_": "NormalizeIntensityd", "subtrahend": 0.5, "divisor": 0.25} | image,
        {"_target_": "RepeatChanneld", "repeats": 3} | image,
        {"_target_": "EnsureTyped", "track_meta": False} | image,
    ]
    settings = {"image_size": side, "transforms": transforms}
    classifier = ZeroShotClassifier(ImageEncoder(backbone), CLASSES, "multilabel", settings).eval()
    classifier.class_weights = torch.randn(len(CLASSES), classifier.image_encoder.embedding_dim)
    return classifier


def _write(backbone: dict[str, Any], side: int, folder: Path, forms: Sequence[str]) -> None:
    classifier = classifier_of(backbone, side)
    save(classifier.state_dict(), folder / "model.pt")
    export_classifier(classifier, folder / "model", [form for form in forms if form != "eager"])


def _by_turns(
    files: dict[str, str], images: str, batch_size: int, rounds: int
) -> tuple[dict[str, list[Turn]], dict[str, int]]:
    """Measure all forms at one batch size: form to its turns, and to its peak memory."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for form, path in files.items():
        ends[form], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(theirs, form, path, images, batch_size)))
        processes[-1].start()
        theirs.close()
    for end in ends.values():  # not counted: the first batches of a process are slow
        _ask(end, "network")
    turns: dict[str, list[Turn]] = {form: [] for form in files}
    for _, form in tqdm([(number, form) for number in range(rounds) for form in files], desc=f"batch {batch_size}"):
        turns[form].append({part: _ask(ends[form], part) for part in ("network", "reading", "pipeline")})
    memory = {form: _ask(end, "memory") for form, end in ends.items()}
    for end in ends.values():  # not before all is measured: a process takes time to end
        end.send(None)
    for process in processes:
        process.join()
    return turns, memory


def _ask(end: Connection, part: str) -> Any:
    end.send(part)
    return end.recv()


def _serve(end: Connection, form: str, path: str, images: str, batch_size: int) -> None:
    """A serving process: it measures what it is asked for, one thing at a time."""
    multiprocessing.set_start_method("fork", force=True)  # of the processes that read, as in a run from a shell
    with tempfile.TemporaryDirectory() as output, open(os.devnull, "w") as silence:
        sys.stderr = silence  # progress bars of the config
        logging.disable(logging.WARNING)
        configs = ["inference.json", *(["inference_onnx.json"] if form.startswith("onnx") else [])]
        override: dict[str, Any] = {"model_path": path, "batch_size": batch_size, "device": "cpu"}
        workflow = ConfigWorkflow(
            [str(CONFIGS / name) for name in configs],
            logging_file=False,
            workflow_type="infer",
            dataset_dir=images,
            output_dir=output,
            **override,
        )
        workflow.initialize()
        evaluator, network, side = workflow.evaluator, workflow.network_def.eval(), _side(workflow)
        batch = torch.randn(batch_size, 3, side, side)
        while part := end.recv():
            if part == "network":
                end.send(_time_network(workflow.inferer, network, batch))
            elif part == "reading":
                start = time.perf_counter()
                count = sum(len(read["image"]) for read in workflow.parser.get_parsed_content("dataloader"))
                end.send(count / (time.perf_counter() - start))
            elif part == "pipeline":
                end.send(_time_pipeline(workflow, evaluator))
            else:
                end.send(megabytes("VmHWM"))


def _side(workflow: ConfigWorkflow) -> int:
    return int(workflow.network_def.preprocessing["image_size"])


@torch.no_grad()
def _time_network(inferer: Any, network: Any, batch: torch.Tensor) -> list[float]:
    seconds = []
    for _ in range(max(3, 16 // len(batch))):
        start = time.perf_counter()
        inferer(batch, network)
        seconds.append(time.perf_counter() - start)
    return seconds


def _time_pipeline(workflow: ConfigWorkflow, evaluator: Any) -> dict[str, Any]:
    ends: list[float] = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(time.perf_counter()))
    start = time.perf_counter()
    workflow.run()
    seconds = time.perf_counter() - start
    rows = json.loads(Path(workflow.parser.get_parsed_content("output_dir"), "predictions.json").read_text())
    scored = [row for row in rows["predictions"] if row["error"] is None]
    if not scored:
        raise BundleError("no image of the folder could be read")
    return {"rate": len(rows["predictions"]) / seconds, "latencies": np.diff(ends).tolist()}


def _figures(turns: list[Turn], eager: list[Turn] | None, batch_size: int) -> list[str]:
    """The cells of one form, from its turns and those of eager in the same rounds."""

    def network(turn: Turn) -> float:
        return batch_size / float(np.median(turn["network"]))

    def pipeline(turn: Turn) -> float:
        return turn["pipeline"]["rate"]

    def to_eager(rate: Callable[[Turn], float]) -> float:
        return (
            median([rate(own) / rate(its) for own, its in zip(turns, eager or [], strict=True)])
            if eager
            else float("nan")
        )

    alone = [seconds for turn in turns for seconds in turn["network"]]
    served = [seconds for turn in turns for seconds in turn["pipeline"]["latencies"]] or [float("nan")]
    starved = median([pipeline(turn) / min(turn["reading"], network(turn)) for turn in turns])
    return [
        f"{median(map(network, turns)):.2f}",
        *(f"{1e3 * np.percentile(alone, share):.0f}" for share in (50, 95)),
        f"{to_eager(network):.2f}",
        f"{median(turn['reading'] for turn in turns):.1f}",
        f"{median(map(pipeline, turns)):.2f}",
        *(f"{1e3 * np.percentile(served, share):.0f}" for share in (50, 95)),
        f"{starved:.2f}",
        f"{to_eager(pipeline):.2f}",
    ]
