"""Several evaluations of the same images side by side: other checkpoints, other prompts, other people's networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.evaluation.figures import Resampling, as_json
from cleft_bundle.files import save_arrays
from cleft_bundle.metrics import Predictions, paired_bootstrap

SCORES = "scores.npz"

Item = dict[str, Any]


class Comparison:
    """Keep the scores of an evaluation, and compare them with those that others have kept.

    Args:
        name: what this evaluation is called in a comparison.
        compared_with: folders of other evaluations, each with its :data:`SCORES`.
        items: the evaluated items.
        class_names: names of the K classes.

    Raises:
        BundleError: where a folder holds no scores, or those of other images or classes.
    """

    def __init__(
        self, name: str, compared_with: Sequence[str | Path], items: Sequence[Item], class_names: Sequence[str]
    ) -> None:
        self.name = name
        self.others = [read_scores(Path(folder) / SCORES) for folder in compared_with]
        images = {pseudonym(item["name"]) for item in items}
        for folder, (_, other) in zip(compared_with, self.others, strict=True):
            if list(other.class_names) != list(class_names):
                raise BundleError(
                    f"compared_with: {folder} has the classes {', '.join(other.class_names)}, expected "
                    f"{', '.join(class_names)}"
                )
            if differing := len(images ^ set(other.names)):
                raise BundleError(
                    f"compared_with: {folder} is of other images, {differing} are in one only: evaluate the same split"
                )

    def figures(self, predictions: Predictions, resampling: Resampling, output_dir: Path) -> list[dict[str, Any]]:
        """Keep the scores in a folder, and compare.

        Args:
            predictions: of this evaluation.
            resampling: how the intervals come about.
            output_dir: receives :data:`SCORES`.

        Returns:
            for each of the others ``name``, and ``metrics``: names to what :class:`cleft_bundle.metrics.Difference`
            holds, this evaluation minus the other.

        Raises:
            BundleError: where labels, patients or the task differ.
        """
        own = replace(predictions, names=[pseudonym(name) for name in predictions.names], groups={})
        texts = {"name": self.name, "task": own.task, "class_names": own.class_names}
        texts |= {"images": list(own.names), "patients": list(own.patients)}
        arrays = {key: np.array(value, dtype=str) for key, value in texts.items()}
        save_arrays(arrays | {"scores": own.scores, "labels": own.labels}, output_dir / SCORES)
        return [
            {
                "name": name,
                "metrics": {
                    metric: as_json(difference)
                    for metric, difference in paired_bootstrap(own, other, **asdict(resampling)).items()
                },
            }
            for name, other in self.others
        ]


def read_scores(path: Path) -> tuple[str, Predictions]:
    """Read what :meth:`Comparison.figures` kept: the name of the evaluation, and its predictions.

    Raises:
        BundleError: where there is no such file, or it is none of these.
    """
    if not path.is_file():
        raise BundleError(f"{path} does not exist: an evaluation (configs/evaluate.json) writes it")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        task: Any = str(arrays["task"])
        names, images, patients = (arrays[key].tolist() for key in ("class_names", "images", "patients"))
        return str(arrays["name"]), Predictions(arrays["scores"], arrays["labels"], names, task, images, patients)
    except (KeyError, ValueError, OSError) as error:
        raise BundleError(f"{path} does not hold the scores of an evaluation: {error}") from error
