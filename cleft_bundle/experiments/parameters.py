"""Numbers of trained parameters, counted in the files that the runs of a row have left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleft_bundle import files
from cleft_bundle.checkpoints.trained_on import MADE_BY
from cleft_bundle.metrics.score_files import KeptScores

#: Files that hold what was trained.
TRAINED = ("cleft.pt", "cleft_prompt.pt", "finetuned.pt")
_PROJECTION = "_encoder.projection."
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms, which nothing trains


@dataclass(frozen=True)
class Parameters:
    """Numbers of trained parameters.

    Args:
        image: of the image tower.
        text: of the text tower.
        heads: of projections, temperature, learnt prompts and classification heads.
    """

    image: int
    text: int
    heads: int


def count_trained(folders: Sequence[str | Path], measured: KeptScores) -> Parameters:
    """Count what the runs in some folders have trained, each parameter once however often it was trained.

    Args:
        folders: of the runs that a row takes, in order.
        measured: the scores of the last one, which know of a linear probe's head.
    """
    sizes: dict[str, int] = {}
    for folder in folders:
        for path in sorted(path for name in TRAINED for path in Path(folder).rglob(name)):
            state = files.load(path, MADE_BY)
            adapters = json.loads(state.get("settings", "{}")).get("trained")
            sizes |= _sizes(state["weights"], path.name == "finetuned.pt", adapters)
    sides = {"image": 0, "text": 0, "heads": int(measured.about.get("settings", {}).get("parameters", 0))}
    for name, size in sizes.items():
        sides[_side(name)] += size
    return Parameters(**sides)


def _sizes(weights: Mapping[str, Any], finetuned: bool, adapters: Mapping[str, int] | None) -> dict[str, int]:
    """Names to numbers of parameters.

    A fine-tuning keeps the projection, which it leaves as it was, and a tower into which its adapters were merged.
    """
    if adapters is not None:
        heads = {name: tensor.numel() for name, tensor in weights.items() if not name.startswith("image_encoder.")}
        return {**heads, **adapters}
    return {
        name: tensor.numel()
        for name, tensor in weights.items()
        if not name.endswith(_STATISTICS) and not (finetuned and _PROJECTION in name)
    }


def _side(name: str) -> str:
    if _PROJECTION in name:
        return "heads"
    return {"image_encoder": "image", "text_encoder": "text"}.get(name.partition(".")[0], "heads")
