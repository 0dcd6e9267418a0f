"""Validations of a training that is counted in epochs or in steps."""

import itertools

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from cleft_bundle.engines import TrainingStep
from cleft_bundle.engines.schedule import end_after
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import PeriodicValidation
from cleft_bundle.handlers.updates import last_batch, updates_done, updates_planned
from tests.handlers.test_updates import Slope, trainer


def validator():
    return SupervisedEvaluator(torch.device("cpu"), [0], Slope(), iteration_update=lambda engine, batch: {})


def seen(engine, **arguments):
    """Number of each validation, and the batch after which it was."""
    numbers, evaluator = [], validator()
    evaluator.add_event_handler(
        Events.STARTED, lambda: numbers.append((evaluator.state.epoch + 1, engine.state.iteration))
    )
    PeriodicValidation(validator=evaluator, **arguments).attach(engine)
    engine.run()
    return numbers


@pytest.mark.parametrize(
    ("accumulation_steps", "max_steps", "arguments", "expected"),
    [
        (1, None, {"interval": 2}, [(2, 10), (3, 15)]),  # three epochs of 5 batches
        (1, 7, {"interval": 1}, [(1, 5), (2, 7)]),
        (1, 10, {"interval": 1}, [(1, 5), (2, 10)]),
        (1, 7, {"interval": 9}, [(2, 7)]),
        (1, 7, {"interval": 1, "steps": 3}, [(3, 3), (6, 6), (7, 7)]),
        (1, 10, {"interval": 1, "steps": 5}, [(5, 5), (10, 10)]),
        (1, 4, {"interval": 1, "steps": 50}, [(4, 4)]),  # the end is always validated
        (2, 4, {"interval": 1, "steps": 2}, [(2, 4), (4, 7)]),  # groups of 2, 2 and 1 batches
        (2, None, {"interval": 1, "steps": 4}, [(4, 7), (8, 14), (9, 15)]),
        (7, 2, {"interval": 1, "steps": 1}, [(1, 5), (2, 10)]),  # a group is as long as an epoch
    ],
)
def test_a_training_is_validated_when_it_is_due_and_at_its_end(accumulation_steps, max_steps, arguments, expected):
    engine = trainer(TrainingStep(), epochs=3, accumulation_steps=accumulation_steps)
    if max_steps is not None:
        end_after(engine, max_steps)
    assert seen(engine, **arguments) == expected
    assert engine.state.iteration == expected[-1][1] == last_batch(engine)


@pytest.mark.parametrize(("accumulation_steps", "max_steps"), itertools.product((1, 2, 3, 9), (1, 3, 5, 8)))
def test_a_training_ends_after_so_many_updates(accumulation_steps, max_steps):
    engine = trainer(TrainingStep(), accumulation_steps=accumulation_steps)
    end_after(engine, max_steps)
    updates, apply = [], engine.optimizer.step
    engine.optimizer.step = lambda: (updates.append(updates_done(engine)), apply())
    engine.run()
    assert updates == list(range(1, max_steps + 1))
    assert updates_planned(engine) == max_steps


def test_numbers_out_of_range_are_refused():
    with pytest.raises(BundleError, match="max_steps: expected 1 or more, or null, got 0"):
        end_after(trainer(TrainingStep()), 0)
    with pytest.raises(BundleError, match="val_every_steps: expected 1 or more, or null, got 0"):
        PeriodicValidation(1, steps=0)
