"""Several evaluations of the same images side by side: other checkpoints, other prompts, other people's networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.data.item import Item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import Predictions, delong_test, holm, paired_bootstrap
from cleft_bundle.metrics.classification import CALIBRATION, RANKED, THRESHOLDED
from cleft_bundle.metrics.score_files import SCORES, keep_scores, read_kept_scores
from cleft_bundle.reports.evaluation.estimates import Resampling, as_json
from cleft_bundle.reports.evaluation.scored import ScoredImages

Limits = Mapping[str, float]


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
        for folder, (_, other, _) in zip(compared_with, self.others, strict=True):
            if list(other.class_names) != list(class_names):
                raise BundleError(
                    f"compared_with: {folder} has the classes {', '.join(other.class_names)}, expected "
                    f"{', '.join(class_names)}"
                )
            if differing := len(images ^ set(other.names)):
                raise BundleError(
                    f"compared_with: {folder} is of other images, {differing} are in one only: evaluate the same images"
                )

    def estimates(self, scored: ScoredImages, resampling: Resampling, output_dir: Path) -> list[dict[str, Any]]:
        """Keep the scores in a folder, and compare.

        Args:
            scored: the images of this evaluation.
            resampling: how the intervals come about.
            output_dir: receives :data:`SCORES`.

        Returns:
            for each of the others ``name``; ``metrics``: names to what :class:`cleft_bundle.metrics.Difference`
            holds, this evaluation minus the other, each at its own thresholds; and ``delong``: names of classes to
            DeLong's test of their AUROCs. Both have ``holm`` beside ``p_value``, adjusted over all of their rows.

        Raises:
            BundleError: where labels, patients or the task differ.
        """
        limits = scored.limits
        own = keep_scores(output_dir / SCORES, self.name, scored.predictions, limits)
        return [
            {
                "name": name,
                "metrics": _with_holm(_differences((own, limits), (other, thresholds), resampling)),
                "delong": _with_holm(_delong(own, other, resampling.confidence)),
            }
            for name, other, thresholds in self.others
        ]


def _differences(
    first: tuple[Predictions, Limits], second: tuple[Predictions, Limits], resampling: Resampling
) -> dict[str, dict[str, Any]]:
    """The differences of all metrics that both have; those at thresholds for the classes that both have one of."""
    own, other = first[0], second[0]
    probable = all(one.scores.min() >= 0 and one.scores.max() <= 1 for one in (own, other))
    plain = [*RANKED, *(CALIBRATION if probable else ())]
    if own.task == "multiclass":
        found = paired_bootstrap(own, other, [*plain, *THRESHOLDED], **asdict(resampling))
        return {name: as_json(one) for name, one in found.items()}
    found = paired_bootstrap(own, other, plain, **asdict(resampling))
    shared = [name for name in own.class_names if name in first[1] and name in second[1]]
    if shared:
        called = [_at_zero(predictions, limits, shared) for predictions, limits in (first, second)]
        found |= paired_bootstrap(called[0], called[1], THRESHOLDED, **asdict(resampling), thresholds=0.0)
    return {name: as_json(one) for name, one in found.items()}


def _at_zero(predictions: Predictions, limits: Limits, names: Sequence[str]) -> Predictions:
    """Some classes with a score of 1 for those that are called and -1 for the others: thresholds are each one's own."""
    columns = [predictions.class_names.index(name) for name in names]
    called = predictions.scores[:, columns] >= np.array([limits[name] for name in names])
    labels = predictions.labels[:, columns]
    return replace(predictions, scores=np.where(called, 1.0, -1.0), labels=labels, class_names=list(names), groups={})


def _delong(own: Predictions, other: Predictions, confidence: float) -> dict[str, dict[str, Any]]:
    """DeLong's test of each class for which it is defined."""
    place = {name: row for row, name in enumerate(other.names)}
    scores = other.scores[[place[name] for name in own.names]]
    found = {}
    for number, name in enumerate(own.class_names):
        columns = own.scores[:, number], scores[:, number], own.labels[:, number]
        try:
            test = delong_test(*columns, own.patients, confidence)
        except BundleError:  # fewer than two patients on a side
            continue
        found[name] = {
            **{"value": test.difference, "low": test.low, "high": test.high},
            **{"p_value": test.p_value, "p_is_bound": False},
        }
    return found


def _with_holm(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows with ``p_value``, each with ``holm`` beside it; None where there is no p."""
    known = [name for name, row in rows.items() if row["p_value"] is not None]
    adjusted = holm({name: rows[name]["p_value"] for name in known})
    return {name: {**row, "holm": adjusted.get(name)} for name, row in rows.items()}


def read_scores(path: Path) -> tuple[str, Predictions, dict[str, float]]:
    """Read what :meth:`Comparison.figures` kept: the name of the evaluation, its predictions, and its thresholds.

    Raises:
        BundleError: where there is no such file, or it is none of these.
    """
    kept = read_kept_scores(path)
    return kept.name, kept.predictions, dict(kept.thresholds)
