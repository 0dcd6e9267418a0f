"""Numbers of single steps, which stay on the device until many are read at once: each reading waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from ignite.engine import Engine, Events
from torch.utils._pytree import tree_leaves

from cleft_bundle.distributed import whole
from cleft_bundle.errors import BundleError
from cleft_bundle.networks.protocol import Embeddings

Value = torch.Tensor | float
#: Steps after which losses are read, so that a training that has gone astray ends soon.
EVERY = 20
_ADVICE = "a lower learning_rate or max_grad_norm 1 may help; checkpoints written so far are kept"


def numbers(values: Sequence[Value]) -> list[float]:
    """Read scalars, those on the device by one transfer."""
    tensors = [value.detach().double().reshape(()) for value in values if isinstance(value, torch.Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(read) if isinstance(value, torch.Tensor) else float(value) for value in values]


def loss_and_scale(output: Mapping[str, Any]) -> dict[str, Value]:
    """Values of a training step for MLflow, from the trainer's output: the loss, and what embeddings carry."""
    kept = {"train_loss": output["loss"]}
    if isinstance(output["pred"], Embeddings):  # logits of a classification carry no scale
        kept["logit_scale"] = output["pred"].logit_scale.detach()
    return kept


class Losses:
    """Losses of a training, which are read and must be finite every few steps and before anything is saved.

    A step that waited for its loss would leave the device idle until the next one is prepared.
    """

    _by_engine: ClassVar[WeakKeyDictionary[Engine, Losses]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._kept: list[tuple[int, Value]] = []
        self._readers: list[Callable[[list[float]], None]] = []

    @classmethod
    def of(cls, engine: Engine) -> Losses:
        """Those of an engine whose output has a ``loss``: whoever asks first attaches them."""
        if engine not in cls._by_engine:
            losses = cls._by_engine[engine] = cls()
            engine.add_event_handler(Events.ITERATION_COMPLETED, losses._keep)
            engine.add_event_handler(Events.EPOCH_COMPLETED, losses.read)
            engine.add_event_handler(Events.COMPLETED, losses.read)
        return cls._by_engine[engine]

    def told_to(self, reader: Callable[[list[float]], None]) -> None:
        """Give losses to a function as soon as they are read, in the order of their steps."""
        self._readers.append(reader)

    def latest(self) -> float:
        """The loss of the last step, read alone; NaN where nothing is kept."""
        return numbers([self._kept[-1][1]])[0] if self._kept else math.nan

    def read(self) -> None:
        """Read what has been kept.

        Raises:
            BundleError: where a loss is not a finite number; names the step.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        values = numbers([loss for _, loss in kept])
        for (step, _), value in zip(kept, values, strict=True):
            if not math.isfinite(value):
                seen = f", seen after step {kept[-1][0]}" if step < kept[-1][0] else ""
                raise BundleError(f"the loss is {value} in step {step}{seen}: {_ADVICE}")
        for reader in self._readers:
            reader(values)

    def _keep(self, engine: Engine) -> None:
        self._kept.append((engine.state.iteration, engine.state.output["loss"]))
        if len(self._kept) >= EVERY:
            self.read()


def check_finite(state: Any, step: int) -> None:
    """Refuse to save weights that are not finite numbers, as a finite loss may have had other gradients.

    All processes must ask where weights are divided among them, and all get the same answer.

    Args:
        state: tensors in mappings and lists.
        step: after which they are.

    Raises:
        BundleError: names the step.
    """
    tensors = [t for t in tree_leaves(state) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    if tensors and not torch.stack(whole([torch.isfinite(t).all() for t in tensors])).all():
        raise BundleError(f"the weights are not finite after step {step}: {_ADVICE}")
