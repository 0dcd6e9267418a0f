"""AdaLoRA's division of ranks while training goes on."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from cleft_bundle.handlers.updates import count_updates, has_updated, updates_done
from cleft_bundle.networks import CLEFT, AdaLora

STATE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of peft's RankAllocator


class RankAllocation:
    """Let AdaLoRA prune the ranks that matter least after every update; with any other method, do nothing.

    Args:
        network: the dual encoder.

    Source: Zhang et al., "AdaLoRA", ICLR 2023, algorithm 1.
    """

    def __init__(self, network: CLEFT) -> None:
        self.text_encoder = network.text_encoder

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if isinstance(self.text_encoder.peft, AdaLora):
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._allocate)

    def state_dict(self) -> dict[str, Any]:
        """The running importances of all ranks, for a run that is resumed."""
        if not isinstance(self.text_encoder.peft, AdaLora):
            return {}
        allocator = self.text_encoder.backbone.base_model.rankallocator
        return {name: dict(getattr(allocator, name)) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the importances of an interrupted run."""
        for name, values in state.items():
            setattr(self.text_encoder.backbone.base_model.rankallocator, name, dict(values))

    def _start(self, engine: SupervisedTrainer) -> None:
        updates = engine.state.max_epochs * count_updates(engine.state.epoch_length, engine.accumulation_steps)
        self.text_encoder.backbone.base_model.rankallocator.set_total_step(updates)

    def _allocate(self, engine: SupervisedTrainer) -> None:
        if has_updated(engine):
            self.text_encoder.backbone.base_model.update_and_allocate(updates_done(engine))
