"""The one way to score images with a classifier, whatever form its file has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.networks.utils import eval_mode

from cleft_bundle.checkpoints import open_classifier
from cleft_bundle.data import TolerantDataset, begin_reading, collate_readable
from cleft_bundle.inference.readable import predict
from cleft_bundle.metrics import Calibration
from cleft_bundle.networks import DeployedClassifier, ExportedClassifier
from cleft_bundle.networks.classifiers.typicality import UNUSUAL_BELOW
from cleft_bundle.progress import bar
from cleft_bundle.transforms import build_transforms
from cleft_bundle.vocabulary import Task


@dataclass(frozen=True)
class Scores:
    """Scores of N images by a classifier.

    Args:
        scores: float64 [N, K], calibrated probabilities in the order of the classes; rows of NaN where an image could
            not be read, or is blank.
        logits: float64 [N, K], before calibration; NaN likewise.
        errors: N texts, why an image has no scores; empty where it has.
        embeddings: float32 [N, D], what the classifier's head takes; NaN likewise. None where they were not asked for.
        typicality: float64 [N] in 0..1, the share of validation patients that were at most as typical; NaN likewise.
            None where the classifier does not know it.
    """

    @property
    def unusual(self) -> np.ndarray | None:
        """True [N] for images that are less typical than 95 % of the validation patients; None as above."""
        return None if self.typicality is None else self.typicality < UNUSUAL_BELOW  # NaN is not

    scores: np.ndarray
    logits: np.ndarray
    errors: list[str]
    embeddings: np.ndarray | None = None
    typicality: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.errors)


class Scorer:
    """Score images with a classifier, prepared as its file says.

    An image's scores depend neither on the images beside it nor on ``batch_size`` and ``num_workers``, but for the
    rounding of float32 (some 1e-6).

    Args:
        model: the file of a classifier, in any form of :func:`cleft_bundle.checkpoints.open_classifier`, or a
            classifier, which is moved to the device.
        device: where it computes; ONNX files compute on the CPU.
        batch_size: images at a time.
        num_workers: processes that read images.

    Raises:
        BundleError: where the file does not exist, or is no classifier that says how its images are prepared.
    """

    def __init__(
        self,
        model: str | Path | DeployedClassifier | ExportedClassifier,
        device: torch.device | str = "cpu",
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        network = open_classifier(model) if isinstance(model, str | Path) else model
        self.network = network.to(device)
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.transforms = build_transforms(network.preprocessing["transforms"])

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes."""
        return self.network.class_names

    @property
    def task(self) -> Task:
        """``multiclass`` or ``multilabel``."""
        return self.network.task

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Settings by which images are prepared, see :class:`cleft_bundle.networks.DeployedClassifier`."""
        return self.network.preprocessing

    @property
    def calibration(self) -> Calibration | None:
        """Calibration from logits to scores; None where the classifier is not calibrated: its temperature is 1 then.

        The interval of the temperature and the number of images are those that its file tells; files before version
        0.8.0 tell neither.
        """
        stored = self.network.calibration
        if stored is None:
            return None
        low, high = self.operating_point.get("temperature_interval", (math.nan, math.nan))
        n_images = self.operating_point.get("calibration_images", 0)
        return Calibration(**stored, task=self.task, low=low, high=high, n_images=n_images)

    @property
    def operating_point(self) -> dict[str, Any]:
        """``thresholds``, and how they and the calibration were chosen."""
        return self.network.operating_point

    @property
    def thresholds(self) -> dict[str, float] | None:
        """Names of classes to the calibrated score from which on an image is called positive; None where none is set.

        Classes for which none could be chosen are absent.
        """
        return dict(self.operating_point["thresholds"]) or None

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of the classifier: ``run``, ``seen`` and what else its file says; empty for old files."""
        return self.network.provenance

    def score(
        self, items: Iterable[Mapping[str, Any]], embeddings: bool = False, progress: str | None = None
    ) -> Scores:
        """Score images.

        Args:
            items: N of them, each with the path of a file as ``image``; what else they have plays no part. The same
                file may be there twice.
            embeddings: return embeddings as well, which exported files cannot give.
            progress: what a progress bar is to say; None shows none.

        Returns:
            scores in the order of the items. What cannot be read stops nothing.
        """
        listed = [{"image": str(item["image"]), "path": str(number)} for number, item in enumerate(items)]
        shape = len(listed), len(self.class_names)
        scores, logits = np.full(shape, np.nan), np.full(shape, np.nan)
        errors, embedded = [""] * len(listed), dict[int, np.ndarray]()
        typicality = None if self.network.typicality is None else np.full(len(listed), np.nan)
        with eval_mode(self.network):
            for batch in bar(self._loader(listed), progress, "batch", hidden=progress is None, leave=False):
                for failure in batch["failures"]:
                    errors[int(failure["path"])] = failure["error"]
                rows = [int(path) for path in batch["path"]]
                if rows:
                    found = predict(self.network, batch["image"].to(self.device), embeddings)
                    scores[rows], logits[rows] = found.scores.numpy(), found.logits.numpy()
                    if typicality is not None and found.typicality is not None:
                        typicality[rows] = found.typicality.numpy()
                    if found.embeddings is not None:
                        embedded |= zip(rows, found.embeddings.numpy(), strict=True)
        return Scores(scores, logits, errors, _table(embedded, len(listed)) if embeddings else None, typicality)

    def _loader(self, listed: Sequence[Mapping[str, str]]) -> DataLoader:
        return DataLoader(
            TolerantDataset(listed, self.transforms),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=begin_reading,
            collate_fn=collate_readable,
        )


def _table(rows: Mapping[int, np.ndarray], count: int) -> np.ndarray:
    """Rows by their numbers as one array [count, D], NaN where there is none; D is 0 where there is none at all."""
    width = len(next(iter(rows.values()))) if rows else 0
    table = np.full((count, width), np.nan, np.float32)
    for number, row in rows.items():
        table[number] = row
    return table
