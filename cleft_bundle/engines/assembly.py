"""MONAI's engines put together for a dual encoder or a classifier of images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.networks.utils import eval_mode
from torch.distributed.fsdp import FSDPModule

from cleft_bundle.distributed import gather_lists, world_size
from cleft_bundle.engines.precision import compile_towers, precision_of
from cleft_bundle.engines.prepare_batch import PrepareImageText
from cleft_bundle.engines.schedule import end_after
from cleft_bundle.engines.training_step import TrainingStep

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _passing_to(engine: type) -> Callable[[_Function], _Function]:
    """Say in the signature which further arguments a function takes, so that a config's mistyped one is found."""

    def named(function: _Function) -> _Function:
        own = inspect.signature(function)
        kept = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        further = [each for each in inspect.signature(engine).parameters.values() if each.name not in own.parameters]
        keywords = [each.replace(kind=each.KEYWORD_ONLY) for each in further]
        setattr(function, "__signature__", own.replace(parameters=kept + keywords))  # noqa: B010 - mypy knows none
        return function

    return named


@_passing_to(SupervisedTrainer)
def training_engine(
    *,
    loss_function: Any,
    text: bool = True,
    chunk_size: int | None = None,
    max_grad_norm: float | None = None,
    autocast: str | None = None,
    max_steps: int | None = None,
    compiled: bool = False,
    **kwargs: Any,
) -> SupervisedTrainer:
    """MONAI's trainer for batches of :class:`cleft_bundle.data.CaptionCollate`.

    Args:
        loss_function: its ``target``, ``caption_id`` or ``label``, is the key of the batch that it compares with; that
            of a loss without one is ``caption_id``.
        text: whether the network takes captions beside images.
        chunk_size: see :class:`TrainingStep`.
        max_grad_norm: see :class:`TrainingStep`.
        autocast: see :func:`cleft_bundle.engines.precision.precision_of`.
        max_steps: see :func:`cleft_bundle.engines.schedule.end_after`. None: ``max_epochs`` count.
        compiled: see :func:`cleft_bundle.engines.precision.compile_towers`.
        kwargs: all other arguments of :class:`monai.engines.SupervisedTrainer`.
    """
    device = torch.device(kwargs["device"])
    if compiled:
        compile_towers(kwargs["network"])
    prepare = PrepareImageText(getattr(loss_function, "target", "caption_id"), text)
    step = TrainingStep(chunk_size, max_grad_norm, precision_of(autocast, device))
    defaults = {"prepare_batch": prepare, "iteration_update": step, "decollate": False}
    defaults["non_blocking"] = torch.cuda.is_available()  # from the pinned memory of the loaders
    trainer = SupervisedTrainer(loss_function=loss_function, **(defaults | kwargs))
    if max_steps is not None:
        end_after(trainer, max_steps)
    return trainer


@_passing_to(SupervisedEvaluator)
def validation_engine(*, text: bool = True, **kwargs: Any) -> SupervisedEvaluator:
    """MONAI's evaluator for batches of :class:`cleft_bundle.data.CaptionCollate`, compared with their ``label``.

    Args:
        text: whether the network takes captions beside images.
        kwargs: all other arguments of :class:`monai.engines.SupervisedEvaluator`.
    """
    defaults = {"prepare_batch": PrepareImageText("label", text), "decollate": False}
    defaults["non_blocking"] = torch.cuda.is_available()
    evaluator = SupervisedEvaluator(**(defaults | kwargs))
    if world_size() > 1:
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep_pace)
    return evaluator


def keep_pace(evaluator: SupervisedEvaluator) -> None:
    """After a process's last batch, run the network as often as those processes still do that have more batches.

    A network that is divided among processes embeds nothing in one of them alone.
    """
    own = evaluator.state.epoch_length
    if not isinstance(evaluator.network, FSDPModule) or (evaluator.state.iteration - 1) % own + 1 < own:
        return
    batches = gather_lists([own])
    image, _, args, text = evaluator.prepare_batch(evaluator.state.batch, evaluator.state.device)
    with torch.no_grad(), eval_mode(evaluator.network):
        for _ in range(max(batches) - own):
            evaluator.inferer(image, evaluator.network, *args, **text)
