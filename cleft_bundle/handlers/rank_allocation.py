"""What a method of parameter-efficient fine-tuning does while training goes on, such as AdaLoRA's division of ranks."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from cleft_bundle.handlers.updates import count_updates, has_updated, updates_done
from cleft_bundle.networks import CLEFT


class RankAllocation:
    """Tell the method that adapts the language model of the start of a training and of every update.

    AdaLoRA prunes the ranks that matter least; the others do nothing.

    Args:
        network: the dual encoder.

    Source: Zhang et al., "AdaLoRA", ICLR 2023, algorithm 1.
    """

    def __init__(self, network: CLEFT) -> None:
        self.method, self.model = network.text_encoder.peft, network.text_encoder.backbone

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._allocate)

    def state_dict(self) -> dict[str, Any]:
        """What the method needs, for a run that is resumed."""
        return self.method.state_dict(self.model)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an interrupted run."""
        self.method.load_state_dict(self.model, state)

    def _start(self, engine: SupervisedTrainer) -> None:
        updates = count_updates(engine.state.epoch_length, engine.accumulation_steps)
        self.method.begin(self.model, engine.state.max_epochs * updates)

    def _allocate(self, engine: SupervisedTrainer) -> None:
        if has_updated(engine):
            self.method.after_update(self.model, updates_done(engine))
