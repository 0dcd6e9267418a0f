"""The learning rate over a training, counted in updates of the weights."""

from __future__ import annotations

import logging
from typing import Any

from monai.engines import Trainer
from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer

from cleft_bundle.distributed import rank
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers.updates import batches_of, count_updates

logger = logging.getLogger(__name__)


def planned_updates(data_loader: Any, epochs: int, accumulation_steps: int = 1, max_steps: int | None = None) -> int:
    """Count the updates of the weights in a training.

    Args:
        data_loader: a ``DataLoader`` of the training images.
        epochs: of the training, where no steps are given.
        accumulation_steps: batches an update.
        max_steps: updates after which the training ends, wherever in an epoch that is. None: it ends with an epoch.

    Raises:
        BundleError: where an epoch has no step; names the batch size and the number of images.
    """
    if len(data_loader) == 0:
        raise BundleError(
            f"batch_size: {data_loader.batch_size} images a batch and process are more than the "
            f"{len(data_loader.sampler)} training images give, so no step could be taken"
        )
    return max_steps or epochs * count_updates(len(data_loader), accumulation_steps)


def end_after(trainer: Trainer, max_steps: int) -> None:
    """Let a trainer that has not begun end after so many updates of the weights, in place of its epochs.

    Args:
        trainer: whose loader knows its length, which is the same in every process.
        max_steps: 1 or more.

    Raises:
        BundleError: where there are fewer, or an epoch has no step.
    """
    if max_steps < 1:
        raise BundleError(f"max_steps: expected 1 or more, or null, got {max_steps}")
    planned_updates(trainer.data_loader, 1)
    state = trainer.state
    state.max_epochs, state.max_iters = None, batches_of(max_steps, state.epoch_length, trainer.accumulation_steps)


def epochs_for(data_loader: Any, min_epochs: int, min_steps: int) -> int:
    """Epochs of a training on few images: as many as give both so many epochs and so many steps.

    Args:
        data_loader: a ``DataLoader`` of the training images.
        min_epochs: at least so many.
        min_steps: so many batches in all, at least.
    """
    return max(min_epochs, -(-min_steps // len(data_loader)))


def validation_interval(epochs: int) -> int:
    """Epochs between two validations, of which a training has about ten."""
    return max(1, epochs // 10)


def short_warmup(updates: int) -> int:
    """Updates of a warm-up that is a tenth of the training; none in one of fewer than ten."""
    return updates // 10


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, updates: int, end_lr: float = 0.0) -> WarmupCosineSchedule:
    """Build a schedule of the learning rate: linear warm-up, then a cosine down to ``end_lr``.

    Args:
        optimizer: whose rates are scaled.
        warmup_steps: updates until the full rate, 0 or more. A warm-up as long as the training or longer, in which the
            rate would only climb, is cut to a tenth of it, and the log says so.
        updates: of the whole training, 1 or more, see :func:`planned_updates`.
        end_lr: rate at the end, 0 or more.

    Raises:
        BundleError: where a number is out of range.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = warmup_cosine(optimizer, warmup_steps=2, updates=10)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(round(schedule.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     schedule.step()
        ...
        >>> rates
        [0.0, 0.5, 1.0, 0.962]
    """
    if updates < 1:
        raise BundleError(f"updates: expected 1 or more, got {updates}")
    if warmup_steps < 0:
        raise BundleError(f"warmup_steps: expected 0 or more, got {warmup_steps}")
    if end_lr < 0:
        raise BundleError(f"final_learning_rate: expected 0 or more, got {end_lr}")
    if warmup_steps >= updates:
        tenth = updates // 10
        if rank() == 0:
            logger.warning(
                f"warmup_steps is {warmup_steps}, but the training has only {updates} updates: {tenth} are taken"
            )
        warmup_steps = tenth
    return WarmupCosineSchedule(optimizer, warmup_steps, updates, end_lr)
