"""The run of a training: what must be right before its first step, and what makes it a training at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from monai.engines import SupervisedEvaluator, Trainer

from cleft_bundle import files
from cleft_bundle.data.datalists import write_datalist
from cleft_bundle.data.item import Item
from cleft_bundle.distributed import first_does, rank, wait_for_all, world_size
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import RunRecord, RunTracker
from cleft_bundle.handlers.checkpoints import NEEDED

logger = logging.getLogger(__name__)


def run_training(
    trainer: Trainer,
    record: RunRecord,
    class_names: Sequence[str],
    datalist: str | None = None,
    dataset_dir: str = "",
) -> None:
    """Train, under the lock of the run's folders, so that at the end there is an epoch which this run has validated.

    A run that is resumed after its end trains no further: what follows publishes again what it has.

    Args:
        trainer: the training engine, among whose handlers the record is.
        record: what the run keeps of itself.
        class_names: names of the labels.
        datalist: receives the items of the training, divided, before the first step; None: nothing does.
        dataset_dir: what the images in that file are relative to.

    Raises:
        BundleError: where a batch has too few images for the loss, no epoch can be chosen on the validation images,
            another run holds the folders, or the best weights on the disk are not those of the run that is resumed.
    """
    identity, best = record.identity, record.evaluator.state
    check_batches(trainer)
    check_validation(record.splits["validation"], class_names)
    with identity.writing():
        if datalist is not None and rank() == 0:
            write_datalist(record.splits, datalist, dataset_dir, class_names)
        record.checkpoint.resume(trainer)
        if best.best_metric_epoch > 0:
            path = record.best_checkpoint
            made_by = "the run that is resumed wrote it, and cannot go on without it"
            identity.check_own(first_does(lambda: files.load(path, made_by)), path)
        if record.checkpoint.complete:
            logger.info(f"run {identity.name} is finished: no step is left, what it has is published again")
            record.tracker.start()
            return
        logger.info(f"run {identity.name} ({identity.id})")
        with record.checkpoint.when.listening():
            trainer.run()
        wait_for_all()
        if trainer.state.iteration == 0 or best.best_metric_epoch < 1:
            raise BundleError(
                f"run {identity.name} took {trainer.state.iteration} steps and validated "
                f"{'no epoch' if best.best_metric_epoch < 1 else 'some'}: there is nothing to publish"
            )


class Gathering(Protocol):
    """Scorer of further images, before an evaluation: :class:`cleft_bundle.reports.evaluation.Operating`."""

    def gather(self, evaluator: SupervisedEvaluator) -> None:
        """Score them with the network of an engine, and keep what it found."""


def run_evaluation(evaluator: SupervisedEvaluator, operating: Gathering, tracker: RunTracker) -> None:
    """Evaluate, once the images on which calibration and thresholds are chosen have been scored.

    Args:
        evaluator: the engine that scores the evaluated ones.
        operating: gathers the scores of the former.
        tracker: MLflow's run, of the evaluated images alone.
    """
    operating.gather(evaluator)
    tracker.attach(evaluator)
    evaluator.run()


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
