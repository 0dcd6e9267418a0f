"""Validation at intervals of a training."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.engines import Evaluator, SupervisedTrainer
from monai.handlers import ValidationHandler

from cleft_bundle.errors import BundleError
from cleft_bundle.handlers.step_values import Losses
from cleft_bundle.handlers.updates import has_updated, last_batch, updates_done
from cleft_bundle.parts import timed


def counted_in(validator: Evaluator) -> str:
    """Unit that numbers the validations of a training: ``epoch`` or ``step``."""
    return str(getattr(validator.state, "counted", "epoch"))


def best_of(validator: Evaluator) -> str:
    """The best validation so far, such as ``epoch 3`` or ``step 500``."""
    return f"{counted_in(validator)} {validator.state.best_metric_epoch}"


class PeriodicValidation(ValidationHandler):
    """MONAI's handler, which validates every so many epochs or steps, and the end always, wherever it is.

    A validation has the number of its epoch, or of its step where ``steps`` are given; ``validator.state.counted``
    says which: ``epoch`` or ``step``.

    Args:
        interval: epochs between two validations.
        validator: the validation engine.
        steps: updates of the weights between two validations, in place of epochs. None: epochs count.

    Raises:
        BundleError: where the steps are fewer than 1.
    """

    def __init__(self, interval: int, validator: Evaluator | None = None, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise BundleError(f"val_every_steps: expected 1 or more, or null, got {steps}")
        super().__init__(interval, validator)
        self.steps = steps

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""

        def step_is_due(trainer: SupervisedTrainer, batch: int) -> bool:
            if not has_updated(trainer):
                return False
            if self.steps is not None and updates_done(trainer) % self.steps == 0:
                return True
            ends_here = batch == last_batch(trainer)
            return ends_here and (self.steps is not None or batch % trainer.state.epoch_length > 0)

        def epoch_is_due(trainer: Engine, epoch: int) -> bool:
            return self.steps is None and (epoch % self.interval == 0 or trainer.state.iteration == last_batch(trainer))

        Losses.of(engine)
        if self.validator is not None:
            self.validator.state.counted = "epoch" if self.steps is None else "step"
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=step_is_due), self)
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=epoch_is_due), self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Validate after the running epoch or step.

        Raises:
            RuntimeError: where there is no validation engine.
            BundleError: where a loss so far is not a finite number: the best weights would be saved.
        """
        Losses.of(engine).read()
        with timed("validation"):
            if self.steps is None or self.validator is None:
                super().__call__(engine)
            else:
                self.validator.run(updates_done(engine))
