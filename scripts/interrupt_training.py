"""Kill a training again and again at random moments: does it end bit for bit as an undisturbed one?

python scripts/interrupt_training.py --kills 20
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from cleft_bundle.data import phantoms

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "train.json"
TINY = {
    **{"image_backbone#num_hidden_layers": 1, "image_backbone#hidden_size": 48, "image_backbone#image_size": 56},
    **{"image_size": 56, "batch_size": 8, "num_workers": 0, "tracking_uri": ""},
}


def main(
    kills: int = 20,
    epochs: int = 20,
    patients: int = 60,
    accumulation_steps: int = 3,
    checkpoint_interval: int = 2,
    chunk_size: int = 3,
    longest: float = 6.0,
    seed: int = 0,
) -> None:
    """Print what became of the training, and leave with status 1 where the two runs differ in any bit.

    Args:
        kills: how often the disturbed run gets SIGKILL, each time after a random time of its own.
        epochs: of the training.
        patients: phantoms that it is trained on.
        accumulation_steps: batches an update.
        checkpoint_interval: steps between two training states.
        chunk_size: images that are embedded at a time.
        longest: seconds that a life of the process lasts at most before it is killed.
        seed: of the moments, the phantoms and the training.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cleft_bundle.engines", "cleft_bundle.inferers", "monai.engines"])
    moments = np.random.default_rng(seed).uniform(0.0, longest, kills)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        options: dict[str, Any] = TINY | {
            "dataset_dir": phantoms.chest(str(root), patients=patients, seed=seed),
            **{"epochs": epochs, "val_interval": 3, "seed": seed, "accumulation_steps": accumulation_steps},
            **{"checkpoint_interval": checkpoint_interval, "chunk_size": chunk_size},
        }
        run(context, root / "undisturbed", options)
        steps = [run(context, root / "killed", options, moment) for moment in moments]
        run(context, root / "killed", options)
        expected, found = (read(root / place / "models") for place in ("undisturbed", "killed"))
    differing = [key for key in sorted(expected.keys() | found.keys()) if not same(expected.get(key), found.get(key))]
    print(f"steps {expected['iteration']}, accumulation {accumulation_steps}, chunks of {chunk_size} images")
    print(f"stored step after each kill: {', '.join(map(str, steps))}")
    print(f"values compared {len(expected)}, of which differ {len(differing)}: {', '.join(differing[:5]) or 'none'}")
    sys.exit(1 if differing else 0)


def train(options: dict[str, Any]) -> None:
    """Work of the killed process: ``monai.bundle run`` on the real config, under ``--resume auto``."""
    torch.set_num_threads(1)
    log = os.open(Path(options["output_dir"]).parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    workflow = ConfigWorkflow(str(CONFIG), workflow_type="train", logging_file=False, resume="auto", **options)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run(context: Any, output: Path, options: dict[str, Any], moment: float | None = None) -> int:
    """Train; kill the process after ``moment`` seconds. Returns the step of the training state that it leaves."""
    folders = {"output_dir": str(output / "eval"), "models_dir": str(output / "models")}
    output.mkdir(exist_ok=True)
    process = context.Process(target=train, args=(options | folders,))
    process.start()
    if moment is not None:
        process.join(moment)
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    if moment is None and process.exitcode:
        sys.exit(f"the run ended with status {process.exitcode}: {(output / 'log.txt').read_text()[-2000:]}")
    state = output / "models" / "checkpoints" / "training.pt"
    return int(torch.load(state, weights_only=True)["iteration"]) if state.is_file() else 0


def read(models: Path) -> dict[str, Any]:
    """All that a run leaves, by names: its weights, its classifier, its last training state with the learning curve."""
    state = torch.load(models / "checkpoints" / "training.pt", weights_only=True)
    kept = {key: state[key] for key in ("iteration", "complete", "best", "parts")}
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


def same(first: Any, second: Any) -> bool:
    """True where two leaves are equal to the last bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and first == second


if __name__ == "__main__":
    fire.Fire(main)
