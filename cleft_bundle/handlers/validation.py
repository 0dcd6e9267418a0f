"""Validation at intervals of a training."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler


class PeriodicValidation(ValidationHandler):
    """MONAI's handler, which validates every so many epochs, and the last epoch always, however many there are.

    It takes MONAI's arguments: ``interval``, epochs between two validations, and ``validator``, the validation engine.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""

        def due(trainer: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or epoch == trainer.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=due), self)
