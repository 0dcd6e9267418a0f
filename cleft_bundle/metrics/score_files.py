"""The scores of an evaluation as a file, so that another one can be compared with it on the same images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.files import save_arrays
from cleft_bundle.metrics.predictions import Predictions

SCORES = "scores.npz"


@dataclass(frozen=True)
class KeptScores:
    """Content of a file of scores.

    Args:
        name: what the evaluation is called.
        predictions: its scores and labels; images and patients are named by pseudonyms.
        thresholds: name of a class to the score from which on it is called; classes without one are absent.
        about: what else is known of it, such as ``source`` and ``fraction`` of a linear probe.
    """

    name: str
    predictions: Predictions
    thresholds: Mapping[str, float]
    about: Mapping[str, Any] = field(default_factory=dict)


def keep_scores(
    path: str | Path,
    name: str,
    predictions: Predictions,
    thresholds: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Predictions:
    """Write a file that :func:`read_kept_scores` reads.

    Args:
        path: the file, such as ``eval/scores.npz``.
        name: what the evaluation is called.
        predictions: its scores and labels.
        thresholds: name of a class to the score from which on it is called.
        about: what else is to be kept, as JSON-able values.

    Returns:
        the predictions as they stand in the file, images by pseudonyms and without groups.
    """
    own = replace(predictions, names=[pseudonym(str(image)) for image in predictions.names], groups={})
    texts = {"name": name, "task": own.task, "class_names": own.class_names}
    texts |= {"images": list(own.names), "patients": list(own.patients), "about": json.dumps(dict(about or {}))}
    arrays = {key: np.array(value, dtype=str) for key, value in texts.items()}
    limits = np.array([(thresholds or {}).get(label, math.nan) for label in own.class_names])
    save_arrays(arrays | {"scores": own.scores, "labels": own.labels, "thresholds": limits}, path)
    return own


def read_kept_scores(path: str | Path) -> KeptScores:
    """Read what :func:`keep_scores` wrote.

    Raises:
        BundleError: where there is no such file, or it is none of these.
    """
    if not Path(path).is_file():
        raise BundleError(f"{path} does not exist: an evaluation (configs/evaluate.json, or cleft report) writes it")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        task: Any = str(arrays["task"])
        names, images, patients = (arrays[key].tolist() for key in ("class_names", "images", "patients"))
        predictions = Predictions(arrays["scores"], arrays["labels"], names, task, images, patients)
        limits = arrays.get("thresholds", np.full(len(names), np.nan))
        kept = {name: float(limit) for name, limit in zip(names, limits, strict=True) if not math.isnan(limit)}
        about = json.loads(str(arrays.get("about", "{}")))
    except (KeyError, ValueError, OSError) as error:
        raise BundleError(f"{path} does not hold the scores of an evaluation: {error}") from error
    return KeptScores(str(arrays["name"]), predictions, kept, about)
