"""Training of the paper's own model on a small machine: two steps of it, with random weights that need no download.

By torchrun, with ``multi_gpu_train.json`` among the configs, several processes share the work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory import forget_peak, give_back_memory, megabytes
from benchmarks.steps import random_batch
from cleft_bundle.commands.configs import read_config
from cleft_bundle.data.epochs import derive_seed
from cleft_bundle.distributed import end_processes, rank, start_processes, whole, world_size
from cleft_bundle.engines.training_step import mean_of_all
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import CLEFT
from cleft_bundle.networks.backbones import count_parameters, value_fingerprint

CONFIGS = tuple(
    str(Path(__file__).resolve().parents[2] / "configs" / name)
    for name in ("train.json", "net_cleft.json", "net_cleft_random.json")
)
# DINOv2's mask token is for its own pre-training, and CLEFT pools before the final norm
UNUSED = ("embeddings.mask_token", "backbone.layernorm.")


def full_size(
    config_file: str | Sequence[str] = CONFIGS,
    steps: int = 2,
    batch_size: int = 4,
    tokens: int = 20,
    learning_rate: float = 4e-5,
    seed: int = 0,
    **override: Any,
) -> None:
    """Take optimizer steps of a config's network on random images and captions, and say what they cost a process.

    Args:
        config_file: a training config, or a list of one and its overlays.
        steps: number of optimizer steps.
        batch_size: number of images of all processes together, each with a caption of its own.
        tokens: length of each caption in tokens, its closing EOS not counted.
        learning_rate: constant, for there are too few steps to warm up.
        seed: of images and captions.
        override: further values of the config, by id.

    Raises:
        BundleError: where a gradient is zero or not finite, or a frozen weight has changed.
    """
    start_processes()
    rates = {"learning_rate": learning_rate, "backbone_learning_rate": learning_rate}
    config = read_config(config_file, rates | override)
    network: CLEFT = config.get_parsed_content("network")
    counts = count_parameters(network)
    say(f"{counts['total_parameters']:,} parameters, {counts['trainable_parameters']:,} trained; built: {_peak()}")
    frozen = _frozen(network)
    optimizer, loss_of = config.get_parsed_content("optimizer"), config.get_parsed_content("loss")
    say(f"ready: {megabytes('VmRSS') / 1024:.2f} GB resident memory in each of {world_size()} processes")
    network.train()
    give_back_memory()
    forget_peak()
    for step in range(steps):
        batch = random_batch(config, batch_size // world_size(), tokens, derive_seed(seed, step, rank()))
        text = {key: batch[key] for key in ("input_ids", "attention_mask", "caption_index")}
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(batch["image"], **text), batch["caption_id"])
        loss.backward()
        largest = _gradients(network, step)
        optimizer.step()
        mean = float(mean_of_all(loss))
        say(f"step {step + 1}: loss {mean:.4f}, {time.perf_counter() - start:.1f} s; steps so far: {_peak()}")
        say("  largest gradient of " + ", ".join(f"{part}: {value:.1e}" for part, value in largest.items()))
    if _frozen(network) != frozen:
        raise BundleError("a frozen weight has changed")
    say("the frozen weights are unchanged")
    end_processes()


def say(line: str) -> None:
    """Print a line; of several processes the first one does."""
    if rank() == 0:
        print(line, flush=True)


def _gradients(network: CLEFT, step: int) -> dict[str, float]:
    """The largest gradient of each trained part.

    ``lora_A`` has none before ``lora_B``, which starts at zero, has moved.
    """
    largest: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad or any(part in name for part in UNUSED):
            continue
        value = 0.0 if parameter.grad is None else float(whole(parameter.grad.abs().max()))
        if not 0 < value < float("inf") and not (step == 0 and "lora_A" in name):
            raise BundleError(f"{name}: the gradient of step {step + 1} is {value}")
        part = "adapters" if "lora_" in name else ".".join(name.split(".")[:2])
        largest[part] = max(largest.get(part, 0.0), value)
    return largest


def _frozen(network: CLEFT) -> str:
    return value_fingerprint((name, whole(p.detach())) for name, p in network.named_parameters() if not p.requires_grad)


def _peak() -> str:
    return f"{megabytes('VmHWM') / 1024:.2f} GB peak resident memory"
