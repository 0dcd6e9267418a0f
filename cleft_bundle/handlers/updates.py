"""Updates of the weights, one a group of batches, and the learning rate that follows them."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler


def ends_group(step_in_epoch: int, epoch_length: int, accumulation_steps: int) -> bool:
    """True where the weights are updated after a step.

    Groups of batches begin anew with each epoch, and the last one of an epoch may be smaller, as with MONAI's
    ``SupervisedTrainer``. Between two updates a run cannot be interrupted and go on exactly, because gradients are not
    stored.

    Args:
        step_in_epoch: 1 to ``epoch_length``.
        epoch_length: steps an epoch, which are batches.
        accumulation_steps: batches a group, 1 or more.
    """
    return step_in_epoch % accumulation_steps == 0 or step_in_epoch == epoch_length


def count_updates(epoch_length: int, accumulation_steps: int) -> int:
    """Number of updates an epoch, its last and smaller group included; arguments as of :func:`ends_group`."""
    return -(-epoch_length // accumulation_steps)


def batches_of(updates: int, epoch_length: int, accumulation_steps: int) -> int:
    """Number of batches after which so many updates are done, 1 or more; other arguments as of :func:`ends_group`."""
    epochs, rest = divmod(updates - 1, count_updates(epoch_length, accumulation_steps))
    return epochs * epoch_length + min((rest + 1) * accumulation_steps, epoch_length)


def last_batch(trainer: Engine) -> int:
    """Number of the batch that ends a training: of its steps, or of its epochs where these are counted."""
    state = trainer.state
    return int(state.epoch_length * state.max_epochs if state.max_iters is None else state.max_iters)


def has_updated(trainer: SupervisedTrainer) -> bool:
    """True where the running step updates the weights: MONAI's own fires ``MODEL_COMPLETED`` after every batch."""
    return ends_group(_step(trainer), trainer.state.epoch_length, trainer.accumulation_steps)


def updates_done(trainer: SupervisedTrainer) -> int:
    """Number of updates since the beginning of the training, that of the running step included."""
    return _updates(trainer, trainer.state.iteration)


def updates_planned(trainer: SupervisedTrainer) -> int:
    """Number of updates of the whole training."""
    return _updates(trainer, last_batch(trainer))


class UpdateLrSchedule(LrScheduleHandler):
    """MONAI's ``LrScheduleHandler`` that goes on by the updates of the weights, not by batches or epochs.

    It has no state besides that of its scheduler.

    Args:
        lr_scheduler: such as :func:`cleft_bundle.engines.warmup_cosine` builds.
        print_lr: log the rate after every update.
    """

    def __init__(self, lr_scheduler: Any, print_lr: bool = False) -> None:
        super().__init__(lr_scheduler, print_lr=print_lr, epoch_level=False)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self.logger = engine.logger
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Go on by one where the running step has updated the weights."""
        if has_updated(engine):
            super().__call__(engine)


def _updates(trainer: SupervisedTrainer, batches: int) -> int:
    """Number of updates that have begun by the end of so many batches, 1 or more."""
    length, share = trainer.state.epoch_length, trainer.accumulation_steps
    epochs, rest = divmod(batches - 1, length)
    return epochs * count_updates(length, share) + count_updates(rest + 1, share)


def _step(engine: Engine) -> int:
    """The running step, counted from 1 in its epoch."""
    return (engine.state.iteration - 1) % engine.state.epoch_length + 1
