"""The part of a method of parameter-efficient fine-tuning during training, such as AdaLoRA's division of ranks."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from cleft_bundle.handlers.updates import has_updated, updates_done, updates_planned
from cleft_bundle.networks.protocol import Network


class RankAllocation:
    """Tell the methods that adapt the towers of a network of the start of a training and of every update.

    AdaLoRA prunes the ranks that matter least; the others do nothing.

    Args:
        network: whose towers may be adapted.

    Source: Zhang et al., "AdaLoRA", ICLR 2023, algorithm 1.
    """

    def __init__(self, network: Network) -> None:
        self.adapted = network.adapted

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._allocate)

    def state_dict(self) -> dict[str, Any]:
        """State that the methods need, by tower, for a run that is resumed."""
        return {tower: method.state_dict(model) for tower, (method, model) in self.adapted.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an interrupted run."""
        for tower, (method, model) in self.adapted.items():
            method.load_state_dict(model, state[tower])

    def _start(self, engine: SupervisedTrainer) -> None:
        for method, model in self.adapted.values():
            method.begin(model, updates_planned(engine))

    def _allocate(self, engine: SupervisedTrainer) -> None:
        if has_updated(engine):
            for method, model in self.adapted.values():
                method.after_update(model, updates_done(engine))
