"""Handlers that write checkpoints and go on from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Evaluator, Trainer

from cleft_bundle.checkpoints.classifier_file import DeployableState
from cleft_bundle.checkpoints.finetuned import FinetunedState
from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.checkpoints.trained_state import TrainedState
from cleft_bundle.checkpoints.training_state import FORMAT, check_same_run, flatten, load_training_state
from cleft_bundle.config import executed_config
from cleft_bundle.data.epochs import EpochSampler, derive_seed
from cleft_bundle.distributed import rank
from cleft_bundle.files import save
from cleft_bundle.networks import CLEFT, ImageClassifier, TrainableClassifier

logger = logging.getLogger(__name__)


class BestCheckpoint:
    """Write the trained state whenever a validation is the best so far.

    Args:
        network: the dual encoder, or a classifier of images.
        path: the file; each better state replaces it. That of a :class:`TrainableClassifier` is a ``model.pt``.
        trained_on: the split and the patients of the training.
    """

    def __init__(
        self, network: CLEFT | ImageClassifier | TrainableClassifier, path: str, trained_on: TrainedOn
    ) -> None:
        self.state: DeployableState | FinetunedState | TrainedState
        if isinstance(network, TrainableClassifier):
            self.state = DeployableState(network)
        elif isinstance(network, ImageClassifier):
            self.state = FinetunedState(network, trained_on)
        else:
            self.state = TrainedState(network, trained_on)
        self.path = path

    def attach(self, engine: Evaluator) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Evaluator) -> None:
        """Write the file if the evaluation that ends is the best one."""
        if engine.state.best_metric_epoch == engine.state.epoch and rank() == 0:
            save(self.state.state_dict(), self.path)


class TrainingCheckpoint:
    """Write all that an interrupted training needs, every few steps, and go on from it.

    Every step draws its random numbers from the seed and its own number, so none need be stored: a run that was
    killed and resumed ends as one that was not.

    Args:
        path: the file; each newer state replaces it.
        interval: steps between two writings, and so what a killed run can lose. 0 writes none.
        resume: go on from the file instead of starting anew.
        seed: of the run.
        run_name: name of the run in MLflow, kept for its continuation.
        sampler: order of the training items.
        evaluator: the validation engine, whose best result is kept.
        parts: what else has a state: network, optimizer, scheduler, learning curve, by name.

    Raises:
        BundleError: where ``resume`` is set and there is no such file, or its run had another config.
    """

    def __init__(
        self,
        path: str,
        interval: int,
        resume: bool,
        seed: int,
        run_name: str,
        sampler: EpochSampler,
        evaluator: Evaluator,
        parts: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.interval = interval
        self.seed = seed
        self.run_name = run_name
        self.sampler = sampler
        self.evaluator = evaluator
        self.parts = {name: TrainedState(part) if isinstance(part, CLEFT) else part for name, part in parts.items()}
        self.config = flatten(executed_config())
        self.resumed = load_training_state(path) if resume else None
        if self.resumed is not None:
            check_same_run(self.resumed["config"], self.config)

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer and, on resuming, put it where the interrupted run stood."""
        if self.resumed is not None:
            self._restore(engine, self.resumed)
            self.resumed = None
        engine.add_event_handler(Events.ITERATION_STARTED, self._seed_step)
        if self.interval:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self._save_within_epoch)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_after_validation)

    def _seed_step(self, engine: Trainer) -> None:
        torch.manual_seed(derive_seed(self.seed, "step", engine.state.iteration, rank()))

    def _save_within_epoch(self, engine: Trainer) -> None:
        if engine.state.iteration % engine.state.epoch_length:
            self._save(engine)

    def _save_after_validation(self, engine: Trainer) -> None:
        """At the end of an epoch its validation belongs to what is saved."""
        steps = engine.state.epoch_length
        if engine.state.iteration // self.interval != (engine.state.iteration - steps) // self.interval:
            self._save(engine)

    def _save(self, engine: Trainer) -> None:
        if rank():
            return
        best = self.evaluator.state
        save(
            {
                "training_format": FORMAT,
                "run_name": self.run_name,
                "config": self.config,
                "iteration": engine.state.iteration,
                "epoch_length": engine.state.epoch_length,
                "best": {"best_metric": best.best_metric, "best_metric_epoch": best.best_metric_epoch},
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
            },
            self.path,
        )

    def _restore(self, engine: Trainer, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        steps = state["epoch_length"]
        engine.state.iteration = state["iteration"]
        engine.state.epoch, done = divmod(state["iteration"], steps)
        self.sampler.resume(engine.state.epoch, done * engine.data_loader.batch_size)
        for key, value in state["best"].items():
            setattr(self.evaluator.state, key, value)
        logger.info(f"going on after step {state['iteration']} of {self.path}")
