"""The record of a training: its run in MLflow, its learning curve, its checkpoints, the pictures it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.engines import Evaluator, Trainer

from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.data.item import Item
from cleft_bundle.handlers.checkpoints import BestCheckpoint, TrainingCheckpoint
from cleft_bundle.handlers.plots import LossCurve
from cleft_bundle.handlers.rank_allocation import RankAllocation
from cleft_bundle.handlers.shared_pictures import SharedPictures
from cleft_bundle.handlers.tracking import RunTracker
from cleft_bundle.handlers.when_to_save import WhenToSave


class RunRecord:
    """All that a training keeps of itself, and the ranks of AdaLoRA, whose state its checkpoints keep.

    Args:
        tracker: its run in MLflow, which names its identity.
        network: what is trained.
        lr_scheduler: of the learning rate.
        evaluator: the validation engine.
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        trained_on: what the files of the run remember of the patients.
        best_checkpoint: file of the best weights so far, see :class:`BestCheckpoint`.
        when_to_save: how often the training state is written.
        output_dir: folder that receives the learning curve.
        title: what the images are.

    Attributes:
        loss_curve: the learning curve.
        checkpoint: the training state.
    """

    def __init__(
        self,
        tracker: RunTracker,
        network: Any,
        lr_scheduler: Any,
        evaluator: Evaluator,
        splits: Mapping[str, Sequence[Item]],
        trained_on: TrainedOn,
        best_checkpoint: str,
        when_to_save: WhenToSave,
        output_dir: str,
        title: str = "",
    ) -> None:
        self.tracker = tracker
        self.identity = tracker.identity
        self.network = network
        self.evaluator = evaluator
        self.splits = splits
        self.trained_on = trained_on
        self.best_checkpoint = best_checkpoint
        self.output_dir = output_dir
        self.loss_curve = LossCurve(output_dir, evaluator, title)
        self._best = BestCheckpoint(network, best_checkpoint, trained_on, self.identity)
        self._ranks = RankAllocation(network)
        parts = {
            "network": network,
            "lr_scheduler": lr_scheduler,
            "loss_curve": self.loss_curve,
            "rank_allocation": self._ranks,
        }
        self.checkpoint = TrainingCheckpoint(when_to_save, self.identity, splits, evaluator, parts)

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer, and with the validation engine."""
        self._best.attach(self.evaluator)
        self.tracker.of_validation().attach(self.evaluator)
        pictures = SharedPictures(self.evaluator, self.trained_on)
        for part in (self.tracker, self._ranks, self.loss_curve, pictures, self.checkpoint):  # the last keeps states
            part.attach(engine)


class KeepRecord:
    """Let a trainer keep a record; it stands last among the trainer's handlers.

    Args:
        record: which is built apart, as the end of a run asks for it.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer."""
        self.record.attach(engine)
