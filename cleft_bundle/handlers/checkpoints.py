"""Handlers that write checkpoints and go on from them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Evaluator, Trainer

from cleft_bundle.checkpoints.classifier_file import DeployableState
from cleft_bundle.checkpoints.finetuned import FinetunedState
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.checkpoints.sharded_state import is_sharded, read_shards, remove_others, write_shards
from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.checkpoints.trained_state import TrainedState
from cleft_bundle.checkpoints.training_state import FORMAT, check_same_data, check_same_run, flatten
from cleft_bundle.config import executed_config
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.epochs import derive_seed
from cleft_bundle.data.item import Item
from cleft_bundle.distributed import at_first, divide_state, rank, world_size
from cleft_bundle.errors import BundleError
from cleft_bundle.files import save
from cleft_bundle.handlers.step_values import Losses, check_finite
from cleft_bundle.handlers.updates import has_updated, last_batch
from cleft_bundle.handlers.when_to_save import WhenToSave
from cleft_bundle.networks.protocol import Network
from cleft_bundle.parts import timed

logger = logging.getLogger(__name__)

#: What a training writes of its network, by the kind that the network tells.
STATES: dict[str, Any] = {"trained": TrainedState, "finetuned": FinetunedState, "deployable": DeployableState}


class BestCheckpoint:
    """Write the trained state whenever a validation is the best so far.

    Args:
        network: the dual encoder, or a classifier of images.
        path: the file; each better state replaces it. That of a :class:`TrainableClassifier` is a ``model.pt``.
        trained_on: the split and the patients of the training.
        identity: the run, which the file names.
    """

    def __init__(
        self,
        network: Network,
        path: str,
        trained_on: TrainedOn,
        identity: RunIdentity,
    ) -> None:
        self.state = STATES[network.checkpoint](network, trained_on, identity)
        self.path = path

    def attach(self, engine: Evaluator) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Evaluator) -> None:
        """Write the file if the evaluation that ends is the best one.

        Raises:
            BundleError: where the key metric is not defined, so that no epoch is better than another.
        """
        state = engine.state
        if math.isnan(state.metrics[state.key_metric_name]):
            raise BundleError(
                f"validation: {state.key_metric_name} is not defined, so no epoch can be chosen: {NEEDED}"
            )
        if state.best_metric_epoch == state.epoch:
            content = at_first(self.state.state_dict())
            if rank() == 0:
                save(content, self.path)


#: What a validation must hold for its AUROC to be defined.
NEEDED = "no class has both positive and negative validation images"


class TrainingCheckpoint:
    """Write all that an interrupted training needs, every few steps, and go on from it.

    Every step draws its random numbers from the seed and its own number, so none need be stored: a run that was
    killed and resumed ends as one that was not. A state is written only after an update of the weights, as gradients
    that wait for one are not stored.

    Args:
        when: how often it is written, and so what a killed run can lose.
        identity: the run, its file, in which each newer state replaces the last, and the state that it goes on from, if
            any.
        splits: the divided datalist, which must be the same where a run goes on.
        evaluator: the validation engine, whose best result is kept.
        parts: what has a state beside the optimizer: network, scheduler, learning curve, by name.

    Attributes:
        complete: whether the run that is resumed had come to its end.

    Raises:
        BundleError: where the run that is resumed had another config.
    """

    def __init__(
        self,
        when: WhenToSave,
        identity: RunIdentity,
        splits: Mapping[str, Sequence[Item]],
        evaluator: Evaluator,
        parts: Mapping[str, Any],
    ) -> None:
        self.path = str(identity.training_checkpoint)
        self.when = when
        self.identity = identity
        self.evaluator = evaluator
        self.parts = dict(parts)
        if parts["network"].checkpoint == "trained":  # the files hold nothing that is frozen
            self.parts["network"] = TrainedState(parts["network"])
        self.config = flatten(executed_config())
        self.data: dict[str, Any] = {"fingerprint": fingerprint(splits, labels=True)}
        self.complete = False
        self._due = False
        if identity.resumed is not None:
            check_same_run(identity.resumed["config"], self.config)

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer whose data come from :func:`cleft_bundle.data.training_loader`."""
        self.data["epoch_length"] = len(engine.data_loader)
        self.data["step_images"] = engine.data_loader.batch_size * world_size()
        engine.add_event_handler(Events.ITERATION_STARTED, self._seed_step)
        if self.when.ever:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_within_epoch)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_after_validation)

    def resume(self, engine: Trainer) -> None:
        """Put a trainer that this is attached to where the interrupted run stood, if this is its continuation.

        Raises:
            BundleError: where the interrupted run had other data, steps per epoch or images per step.
        """
        if self.identity.resumed is not None:
            self._restore(engine, self.identity.resumed)
            self.identity.resumed["parts"] = {}  # they are where they belong, and large

    def _all_parts(self, engine: Trainer) -> dict[str, Any]:
        """Those that were given, and the optimizer, which a trainer has once it is built."""
        return {**self.parts, "optimizer": engine.optimizer}

    def _seed_step(self, engine: Trainer) -> None:
        torch.manual_seed(derive_seed(engine.data_loader.sampler.seed, "step", engine.state.iteration, rank()))

    def _save_within_epoch(self, engine: Trainer) -> None:
        batch = engine.state.iteration
        self._due = self.when.asked(batch) or self._due
        if (self._due or batch == last_batch(engine)) and batch % engine.state.epoch_length and has_updated(engine):
            self._save(engine)

    def _save_after_validation(self, engine: Trainer) -> None:
        """At the end of an epoch its validation belongs to what is saved; after the last one the run is complete."""
        if self._due or engine.state.iteration == last_batch(engine):
            self._save(engine)

    def _save(self, engine: Trainer) -> None:
        """Write the state; of several processes the first one does.

        Raises:
            BundleError: before it, where a loss or a weight is not a finite number; after it, where the run was asked
                to end.
        """
        Losses.of(engine).read()
        with timed("saving"):
            self._write(engine)
        if self.when.end and engine.state.iteration < last_batch(engine):
            raise BundleError(
                f"SIGTERM: run {self.identity.name} ends after step {engine.state.iteration}, whose state is written; "
                "--resume true goes on"
            )

    def _write(self, engine: Trainer) -> None:
        self._due = False
        self.when.saved()
        parts = {name: part.state_dict() for name, part in self._all_parts(engine).items()}
        check_finite(parts["network"], engine.state.iteration)
        path = Path(self.path)
        shards = None
        if is_sharded(engine.network, path.parent):
            shards = path.with_name(f"{path.stem}_{engine.state.iteration}")
            write_shards(shards, parts["network"].pop("weights"), engine.network, engine.optimizer)
            del parts["optimizer"]
        parts = at_first(parts)
        if rank():
            return
        best = self.evaluator.state
        save(
            {
                "training_format": FORMAT,
                "run": self.identity.state_dict(),
                "config": self.config,
                "data": self.data,
                "complete": engine.state.iteration == last_batch(engine),
                "iteration": engine.state.iteration,
                "best": {"best_metric": best.best_metric, "best_metric_epoch": best.best_metric_epoch},
                "parts": parts,
                "shards": shards and shards.name,
            },
            path,
        )
        remove_others(shards or path, f"{path.stem}_*/")

    def _restore(self, engine: Trainer, state: dict[str, Any]) -> None:
        check_same_data(state["data"], self.data, self.identity.name)
        stored = state["parts"]
        if state.get("shards"):
            weights = stored["network"]["weights"] = self.parts["network"].state_dict()["weights"]
            read_shards(Path(self.path).with_name(state["shards"]), weights, engine.network, engine.optimizer)
        for name, part in self._all_parts(engine).items():
            if name in stored:
                part.load_state_dict(stored[name])
        divide_state(engine.optimizer)
        engine.state.iteration = state["iteration"]
        engine.state.epoch, done = divmod(state["iteration"], self.data["epoch_length"])
        engine.data_loader.sampler.resume(engine.state.epoch, done * engine.data_loader.batch_size)
        for key, value in state["best"].items():
            setattr(self.evaluator.state, key, value)
        self.complete = state["complete"]
        logger.info(f"going on after step {state['iteration']} of {self.path}")
