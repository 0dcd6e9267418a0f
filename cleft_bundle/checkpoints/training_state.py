"""The state of an interrupted training: all that it needs to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleft_bundle import files
from cleft_bundle.errors import BundleError

FORMAT = 3
MADE_BY = "there is nothing to resume; start without --resume"
#: Values of a config that may differ between a run and its continuation: they decide where it runs, not what it learns.
FREE = (
    *("resume", "run_name", "training_checkpoint", "checkpoint_interval", "checkpoint_every_minutes"),
    *("device", "num_workers", "profile", "cache", "cache_dir", "cache_rate", "strategy", "optimizer#network"),
    *("timeout_minutes", "initialize", "finalize"),
    "batch_size",  # of one process: what a step sees of images is compared
    *("tracking_uri", "experiment_name", "bundle_root", "output_dir", "models_dir", "dataset_dir", "dataset_name"),
)


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """The values of a config that must be equal where a run goes on, by id, as JSON texts."""
    flat: dict[str, str] = {}

    def visit(path: str, value: Any) -> None:
        if path in FREE:
            return
        if isinstance(value, Mapping):
            for key, child in value.items():
                visit(f"{path}#{key}" if path else str(key), child)
        else:
            flat[path] = json.dumps(value, default=str)

    visit("", config)
    return flat


def check_same_run(stored: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Refuse to go on under another config.

    Raises:
        BundleError: lists the keys that differ, with both values of the first five.
    """
    keys = [key for key in sorted(stored.keys() | current.keys()) if stored.get(key) != current.get(key)]
    if keys:
        shown = "; ".join(
            f"{key}: {stored.get(key, 'absent')} then, {current.get(key, 'absent')} now" for key in keys[:5]
        )
        more = f"; and {', '.join(keys[5:])}" if len(keys) > 5 else ""
        raise BundleError(f"resume: the config differs from that of the interrupted run in {shown}{more}")


def check_same_data(stored: Mapping[str, Any], current: Mapping[str, Any], run: str) -> None:
    """Refuse to go on with other data, or with data that are divided otherwise.

    Args:
        stored: ``fingerprint`` of the data, ``step_images`` (of all processes) and ``epoch_length`` (steps) of the
            interrupted run.
        current: those of this one.
        run: name of the interrupted run.

    Raises:
        BundleError: names what differs, with both values.
    """
    for key, what in {
        "fingerprint": "the fingerprint of the data (images, splits, captions, labels) is",
        "step_images": "the number of images of a step (batch_size x processes) is",
        "epoch_length": "the number of steps of an epoch is",
    }.items():
        if stored[key] != current[key]:
            then, now = (str(values[key])[:16] for values in (stored, current))
            raise BundleError(f"resume: {what} another one than in run {run}: {then} then, {now} now")


def load_training_state(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint.

    Raises:
        BundleError: where the file does not exist or is none.
    """
    state = files.load(path, MADE_BY)
    if not isinstance(state, dict) or state.get("training_format") != FORMAT:
        raise BundleError(f"{path} is not a training checkpoint of format {FORMAT}")
    return state
