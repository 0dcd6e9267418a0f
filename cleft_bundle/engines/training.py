"""How a training runs: what must be right before its first step, and what makes it a training at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from ignite.engine import Engine
from monai.engines import Evaluator, Trainer

from cleft_bundle import files
from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.data.item import Item
from cleft_bundle.distributed import rank, wait_for_all, world_size
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import RunTracker, TrainingCheckpoint
from cleft_bundle.handlers.checkpoints import NEEDED

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What a training has beside its handlers, such as its learning curve."""

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""


def run_training(
    trainer: Trainer,
    evaluator: Evaluator,
    identity: RunIdentity,
    tracker: RunTracker,
    checkpoint: TrainingCheckpoint,
    best_checkpoint: str,
    splits: Mapping[str, Sequence[Item]],
    class_names: Sequence[str],
    parts: Sequence[Part] = (),
    record: Callable[[], object] | None = None,
) -> None:
    """Train, under the lock of the run's folders, so that at the end there is an epoch which this run has validated.

    A run that is resumed after its end trains no further: what follows publishes again what it has.

    Args:
        trainer: the training engine.
        evaluator: the validation engine, which the trainer starts.
        identity: the run.
        tracker: its MLflow run.
        checkpoint: writes the training state, and puts a resumed run where it stood.
        best_checkpoint: file of the best weights so far.
        splits: ``train`` and ``validation``.
        class_names: names of the labels.
        parts: what else registers with the trainer, before the checkpoint, which stores their states.
        record: writes down what is trained on, such as the datalist, before the first step.

    Raises:
        BundleError: where a batch has too few images for the loss, no epoch can be chosen on the validation images,
            another run holds the folders, or the best weights on the disk are not those of the run that is resumed.
    """
    check_batches(trainer)
    check_validation(splits["validation"], class_names)
    with identity.writing():
        if record is not None and rank() == 0:
            record()
        for part in (tracker, *parts, checkpoint):
            part.attach(trainer)
        if evaluator.state.best_metric_epoch > 0:
            stored = files.load(best_checkpoint, "the run that is resumed wrote it, and cannot go on without it")
            identity.check_own(stored, best_checkpoint)
        if checkpoint.complete:
            logger.info(f"run {identity.name} is finished: no step is left, what it has is published again")
            tracker.start()
            return
        logger.info(f"run {identity.name} ({identity.id})")
        trainer.run()
        wait_for_all()
        if trainer.state.iteration == 0 or evaluator.state.best_metric_epoch < 1:
            raise BundleError(
                f"run {identity.name} took {trainer.state.iteration} steps and validated "
                f"{'no epoch' if evaluator.state.best_metric_epoch < 1 else 'some'}: there is nothing to publish"
            )


def check_batches(trainer: Trainer) -> None:
    """Refuse batches that are too small for the loss.

    Args:
        trainer: the training engine, whose loss may have ``least_images``, of a batch of all processes.

    Raises:
        BundleError: names both numbers.
    """
    images = trainer.data_loader.batch_size * world_size()
    least = getattr(trainer.loss_function, "least_images", 1)
    if images < least:
        kind = type(trainer.loss_function).__name__
        raise BundleError(f"batch_size: {kind} needs at least {least} images a batch, got {images}")


def check_validation(items: Sequence[Item], class_names: Sequence[str]) -> None:
    """Refuse validation images on which no AUROC is defined: no epoch could be chosen by it.

    Args:
        items: the validation items, whose ``label`` [K] holds 1, 0 and NaN (unknown).
        class_names: names of the K classes.

    Raises:
        BundleError: where no class has both positive and negative images; says how many of each there are.
    """
    labels = np.array([item["label"] for item in items], dtype=float).reshape(len(items), len(class_names))
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    if not np.any((positive > 0) & (negative > 0)):
        counts = [f"{name} {p} and {n}" for name, p, n in zip(class_names, positive, negative, strict=True)]
        more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
        raise BundleError(
            f"validation: {NEEDED}, so no epoch can be chosen "
            f"(positive and negative ones: {', '.join(counts[:5])}{more})"
        )
