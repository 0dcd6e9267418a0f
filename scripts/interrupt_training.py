"""Kill a training again and again at random moments: does it end bit for bit as an undisturbed one?

python scripts/interrupt_training.py --kills 20
python scripts/interrupt_training.py --kills 10 --processes 4,2 --strategy fsdp
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from cleft_bundle.data import phantoms

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TINY = {
    **{"image_backbone#num_hidden_layers": 1, "image_backbone#hidden_size": 48, "image_backbone#image_size": 56},
    **{"image_size": 56, "num_workers": 0, "tracking_uri": ""},
}
STEP_IMAGES = 8  # of all processes together


def main(
    kills: int = 20,
    epochs: int = 20,
    patients: int = 60,
    accumulation_steps: int = 3,
    checkpoint_interval: int = 2,
    chunk_size: int = 3,
    longest: float = 6.0,
    seed: int = 0,
    processes: int | tuple[int, int] = 1,
    strategy: str = "auto",
    **override: Any,
) -> None:
    """Print what became of the training, and leave with status 1 where the two runs differ.

    They may differ in no bit where the number of processes stays the same, else by 1e-6 of a weight.

    Args:
        kills: how often the disturbed run is killed, each time after a random time of its own: in turn one process by
            SIGKILL, and all by SIGTERM.
        epochs: of the training.
        patients: phantoms that it is trained on.
        accumulation_steps: batches an update.
        checkpoint_interval: steps between two training states.
        chunk_size: images that are embedded at a time.
        longest: seconds that a life of the processes lasts at most before they are killed.
        seed: of the moments, the phantoms and the training.
        processes: that train, or two numbers, of which the second holds after half of the kills. Images of a step stay
            the same.
        strategy: of several processes, ``ddp`` or ``fsdp``.
        override: further values of the config, by id.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cleft_bundle.engines", "cleft_bundle.inferers", "monai.engines"])
    moments = np.random.default_rng(seed).uniform(0.0, longest, kills)
    first, then = processes if isinstance(processes, tuple) else (processes, processes)
    numbers = [first if life < (kills + 1) // 2 else then for life in range(kills + 1)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        options: dict[str, Any] = TINY | {
            "dataset_dir": phantoms.chest(str(root), patients=patients, seed=seed),
            **{"epochs": epochs, "val_interval": 3, "seed": seed, "accumulation_steps": accumulation_steps},
            **{"checkpoint_interval": checkpoint_interval, "chunk_size": chunk_size},
            **({} if "peft" in override else {"peft#lora_dropout": 0.0}),
            **override,
        }
        several = {number: {"strategy": strategy} if number > 1 else {} for number in (first, then)}
        run(context, root / "undisturbed", options | several[first], first)
        steps = []
        for life, (number, moment) in enumerate(zip(numbers, [*moments, None], strict=True)):
            steps.append(run(context, root / "killed", options | several[number], number, moment, life % 2 == 1))
        expected, found = (read(root / place / "models") for place in ("undisturbed", "killed"))
    most = 0.0 if first == then else 1e-6
    differing = [
        key for key in sorted(expected.keys() | found.keys()) if not same(expected.get(key), found.get(key), most)
    ]
    print(f"steps {expected['iteration']}, accumulation {accumulation_steps}, chunks of {chunk_size} images")
    print(f"processes of each life: {', '.join(map(str, numbers))}; {strategy if first > 1 else 'alone'}")
    print(f"stored step after each life: {', '.join(map(str, steps))}")
    print(f"values compared {len(expected)}, of which differ {len(differing)}: {', '.join(differing[:5]) or 'none'}")
    sys.exit(1 if differing else 0)


def train(options: dict[str, Any], place: Mapping[str, str]) -> None:
    """Work of a killed process: ``monai.bundle run`` on the real config, under ``--resume auto``."""
    os.environ.update(place)
    torch.set_num_threads(1)
    log = os.open(Path(options["output_dir"]).parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    files = [str(CONFIGS / name) for name in ("train.json", *(["multi_gpu_train.json"] if place else []))]
    workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, resume="auto", **options)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run(
    context: Any,
    output: Path,
    options: dict[str, Any],
    number: int,
    moment: float | None = None,
    gently: bool = False,
) -> int:
    """Train; end it after ``moment`` seconds. Returns the step of the training state that it leaves."""
    folders = {"output_dir": str(output / "eval"), "models_dir": str(output / "models")}
    output.mkdir(exist_ok=True)
    options = options | folders | {"batch_size": STEP_IMAGES // number}
    started = [context.Process(target=train, args=(options, place)) for place in places(number)]
    for process in started:
        process.start()
    if moment is not None:
        started[0].join(moment)
        for process in started if gently else started[-1:]:
            if process.is_alive():  # the training may have ended before
                os.kill(process.pid, signal.SIGTERM if gently else signal.SIGKILL)
    ended = wait_for_first(started)
    for process in started:
        process.join(60 if ended or moment is not None else None)
        if process.is_alive():  # it waits for one that is gone, as torchrun would notice
            process.kill()
            process.join()
    if moment is None and any(process.exitcode for process in started):
        sys.exit(f"the run ended badly: {(output / 'log.txt').read_text()[-6000:]}")
    state = output / "models" / "checkpoints" / "training.pt"
    return int(torch.load(state, weights_only=True)["iteration"]) if state.is_file() else 0


def places(number: int) -> list[dict[str, str]]:
    """Environment that torchrun gives each of several processes; none where there is one."""
    if number == 1:
        return [{}]
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = str(held.getsockname()[1])
    together = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
    return [together | {"MASTER_PORT": port, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(number)]


def wait_for_first(started: list[Any]) -> bool:
    """Wait until a process has ended. True where it failed."""
    by_sentinel = {process.sentinel: process for process in started}
    first = by_sentinel[multiprocessing.connection.wait(list(by_sentinel))[0]]
    first.join()
    return bool(first.exitcode)


def read(models: Path) -> dict[str, Any]:
    """All that a run leaves, by names: its weights, its classifier, its last training state with the learning curve."""
    state = torch.load(models / "checkpoints" / "training.pt", weights_only=True)
    kept = {key: state[key] for key in ("iteration", "complete", "best", "parts")}
    if state["shards"]:
        whole = models / "whole.pt"
        dcp_to_torch_save(models / "checkpoints" / state["shards"], whole)
        kept["shards"] = torch.load(whole, weights_only=True)
    trained = torch.load(models / "cleft.pt", weights_only=True)["weights"]
    classifier = torch.load(models / "model.pt", weights_only=True)
    del classifier["_extra_state"]  # it names the run
    return dict(flat("", {**kept, "cleft.pt": trained, "model.pt": dict(classifier)}))


def flat(path: str, value: Any) -> list[tuple[str, Any]]:
    """The leaves of nested mappings and lists."""
    if not isinstance(value, dict | list | tuple):
        return [(path, value)]
    children = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, child in children for leaf in flat(f"{path}/{key}".lstrip("/"), child)]


def same(first: Any, second: Any, most: float) -> bool:
    """True where two leaves are equal, but for a difference of ``most``."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.allclose(first.double(), second.double(), rtol=0, atol=most)
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= most
    return type(first) is type(second) and first == second


if __name__ == "__main__":
    fire.Fire(main)
