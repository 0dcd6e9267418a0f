"""One training step of a dual encoder, in the form that MONAI's trainers take as ``iteration_update``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.utils import CommonKeys as Keys
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from cleft_bundle.distributed import world_size
from cleft_bundle.engines.strategy import Alone, clip_gradients, sharing
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import Losses, ends_group
from cleft_bundle.networks.protocol import DualNetwork, Embeddings
from cleft_bundle.parts import at_gradient, timed

PRECISIONS = {"bfloat16": torch.bfloat16}
_BACKWARD = {"encode_image": "image tower, backward", "encode_text": "text tower, backward"}


class TrainingStep:
    """Forward, loss, backward and update, for batches that need not fit into memory at once.

    With ``chunk_size`` the embeddings of the whole batch are computed without gradients, chunk by chunk; the loss over
    all of them gives the gradient of each embedding; then each chunk is run again, with gradients and with the same
    dropout, and takes on its share. The result is the gradient of the whole batch; memory is that of one chunk, and
    time that of one more forward pass.

    Under ``torch.distributed`` the processes share the network as :mod:`cleft_bundle.engines.strategy` has it, and the
    loss that is returned is the mean over all of them. MONAI's
    ``accumulation_steps`` of the trainer are heeded: they add up gradients of several batches, each with its own
    negatives. As with MONAI's own step each batch counts ``1 / accumulation_steps``, in an epoch's last and smaller
    group too, and groups begin anew with each epoch.

    Batch norm that is trained sees one chunk, or one process's batch: neither is the whole one, so that both are
    refused, but for ``SyncBatchNorm``, which :func:`cleft_bundle.engines.distribute` puts in its place on GPUs.

    Args:
        chunk_size: number of images, and of distinct captions, that are embedded at a time. None: all at once.
        max_grad_norm: longer gradients are scaled down to this norm. None: never.
        autocast: ``bfloat16`` runs the towers in mixed precision, on CPU and GPU; the loss stays in float32. None:
            float32 throughout.

    Raises:
        BundleError: where a value is none of the above.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
    RepL4NLP 2021.
    """

    def __init__(
        self, chunk_size: int | None = None, max_grad_norm: float | None = None, autocast: str | None = None
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise BundleError(f"chunk_size: expected 1 or more, or null, got {chunk_size}")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise BundleError(f"max_grad_norm: expected a number above 0, or null, got {max_grad_norm}")
        if autocast is not None and autocast not in PRECISIONS:
            raise BundleError(f"autocast: expected {', '.join(PRECISIONS)} or null, got {autocast!r}")
        self.chunk_size = chunk_size
        self.max_grad_norm = max_grad_norm
        self.precision = PRECISIONS.get(autocast or "")
        self._sharing: Alone | None = None

    def __call__(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Train on one batch.

        Returns:
            ``image``, ``label``, ``pred`` (the embeddings) and ``loss``, as MONAI's own iteration does.

        Raises:
            BundleError: where ``chunk_size`` or the number of processes does not go with the network or the objective.
                That the loss is a finite number is looked at later, see :class:`cleft_bundle.handlers.Losses`.
        """
        Losses.of(engine)
        with timed("rest of the step"):
            return self._take(engine, batchdata)

    def _take(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        with timed("moving to the device"):
            image, target, args, text = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        share = engine.accumulation_steps
        before = (engine.state.iteration - 1) % engine.state.epoch_length  # steps of this epoch
        if before % share == 0:
            engine.optimizer.zero_grad(set_to_none=True)
        engine.network.train()
        with timed("checks"):
            self._check(engine, len(image))
        shared = self._shared(engine)
        ends = ends_group(before + 1, engine.state.epoch_length, share)
        if self.chunk_size is None:
            with shared.waiting(not ends):
                pred, penalty = shared.run(lambda: self._forward(engine, image, args, text))
                engine.fire_event(IterationEvents.FORWARD_COMPLETED)
                loss = self._loss(engine, pred, target, penalty)
                with timed("loss"):
                    _mark_towers(pred)
                    (loss / share).backward()
        else:
            pred, loss = self._in_chunks(engine, image, target, text, share, ends)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if ends:
            self._update(engine, shared)
        with timed("loss"):
            mean = mean_of_all(loss)
        engine.state.output = {Keys.IMAGE: image, Keys.LABEL: target, Keys.PRED: pred, Keys.LOSS: mean}
        return engine.state.output

    def _update(self, engine: SupervisedTrainer, shared: Alone) -> None:
        with timed("optimizer"):
            shared.finish(engine.network)
            if self.max_grad_norm is not None:
                clip_gradients(engine.network, self.max_grad_norm)
            engine.optimizer.step()
            engine.network.after_update()
            engine.fire_event(IterationEvents.MODEL_COMPLETED)

    def _forward(
        self, engine: SupervisedTrainer, image: torch.Tensor, args: Any, text: dict[str, torch.Tensor]
    ) -> tuple[Any, torch.Tensor | float]:
        """Predictions and penalty of a whole batch."""
        with timed("forward" if text else "image tower, forward"), self._autocast(image.device):
            pred = engine.inferer(image, engine.network, *args, **text)
        return pred, engine.network.penalty()

    def _check(self, engine: SupervisedTrainer, images: int) -> None:
        """Refuse what would give another gradient than that of the whole batch."""
        if self.chunk_size is not None:
            simple = isinstance(engine.inferer, SimpleInferer)
            for part, divisible in ((engine.network, engine.network.embeds_apart), (engine.inferer, simple)):
                if not divisible:
                    raise BundleError(f"chunk_size: {type(part).__name__} takes whole batches; set chunk_size to null")
        norms = [name for name, module in engine.network.named_modules() if _uses_the_batch(module)]
        if not norms:
            return
        where = f"the batch norm of projection ({norms[0]}) uses the statistics of a batch"
        if self.chunk_size is not None:
            raise BundleError(f"chunk_size: {where}, not of a chunk; set chunk_size to null, or projection to linear")
        if world_size() > 1 and not isinstance(engine.network.get_submodule(norms[0]), torch.nn.SyncBatchNorm):
            raise BundleError(f"projection: {where}, which no process has as a whole; set projection to linear")
        if images < 2:
            raise BundleError(f"batch_size: {where}, but a batch has one image; choose another batch_size")

    def _loss(
        self,
        engine: SupervisedTrainer,
        pred: torch.Tensor | Embeddings,
        target: torch.Tensor,
        penalty: torch.Tensor | float,
    ) -> torch.Tensor:
        with timed("loss"):
            exact = tree_map_only(torch.Tensor, _unrounded, pred)
            return engine.loss_function(exact, target) + penalty

    def _in_chunks(
        self,
        engine: SupervisedTrainer,
        image: torch.Tensor,
        target: torch.Tensor,
        text: dict[str, torch.Tensor],
        share: int,
        ends: bool,
    ) -> tuple[Embeddings, torch.Tensor]:
        network: DualNetwork = engine.network
        shared = self._shared(engine)
        images, captions = list(self._chunks(image)), list(self._chunks(text["input_ids"], text["attention_mask"]))
        own = len(images), len(captions)
        for chunks in (images, captions):  # distinct captions are fewer in some processes
            chunks.extend(chunks[-1:] * (shared.most(len(chunks)) - len(chunks)))
        parts = [("encode_image", part) for part in images] + [("encode_text", part) for part in captions]
        seeds = torch.randint(2**62, (len(parts),)).tolist()  # of the processor: nothing waits for it
        work = [_Chunk(method, part, image.device, seed) for (method, part), seed in zip(parts, seeds, strict=True)]
        with torch.no_grad():
            embedded = [_unrounded(self._encode(network, chunk)) for chunk in work]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        leaves = [part.requires_grad_() for part in embedded]
        counted = leaves[: own[0]], leaves[len(images) :][: own[1]]
        joined = network.pair(torch.cat(counted[0]), torch.cat(counted[1]), text["caption_index"])
        scale = joined.logit_scale.detach().requires_grad_()
        bias = None if joined.logit_bias is None else joined.logit_bias.detach().requires_grad_()
        pred = Embeddings(joined.image, joined.text, scale, bias)
        loss = self._loss(engine, pred, target, 0.0)
        with timed("loss"):
            (loss / share).backward()
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        # the last of each tower, and what has no rows, go together: one backward pass of them all ends the sum
        last = [len(images) - 1, len(work) - 1]
        for number, (chunk, gradient) in enumerate(zip(work, gradients, strict=True)):
            if number not in last:
                with shared.waiting(True):
                    output = shared.run(partial(self._encode, network, chunk))
                    _backward([(output, gradient)])
        with shared.waiting(not ends):
            outputs, scales, penalty = shared.run(
                lambda: (
                    [self._encode(network, work[number]) for number in last],
                    (network.scale, network.logit_bias),
                    network.penalty(),
                )
            )
            pairs = [*zip(outputs, [gradients[number] for number in last], strict=True), (scales[0], scale.grad)]
            if bias is not None and scales[1] is not None:
                pairs.append((scales[1], bias.grad))
            if isinstance(penalty, torch.Tensor):
                pairs.append((penalty, torch.ones_like(penalty) / share))
                loss = loss + penalty
            _backward(pairs)
        return pred, loss

    def _shared(self, engine: SupervisedTrainer) -> Alone:
        """The way in which the processes share the network: a replica is made once it has its weights."""
        if self._sharing is None:
            self._sharing = sharing(engine.network)
        return self._sharing

    def _chunks(self, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        yield from zip(*(tensor.split(self.chunk_size) for tensor in tensors), strict=True)

    def _encode(self, network: DualNetwork, chunk: _Chunk) -> torch.Tensor:
        """Run a tower under random numbers that come out the same the second time."""
        devices = [chunk.device] if chunk.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self._autocast(chunk.device):
            torch.manual_seed(chunk.seed)
            embedded: torch.Tensor = getattr(network, chunk.method)(*chunk.part)
            at_gradient(embedded, _BACKWARD[chunk.method])
            return embedded

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None)


@dataclass
class _Chunk:
    """A part of a batch that a tower embeds twice, with the same random numbers."""

    method: str
    part: tuple[torch.Tensor, ...]
    device: torch.device
    seed: int


def _backward(pairs: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
    """Give outputs their gradients, and go on from there to the weights; a frozen tower has nothing to learn."""
    learning = [(out, grad.to(out.dtype)) for out, grad in pairs if out.requires_grad and grad is not None]
    if learning:
        with timed("loss"):  # until it comes to a tower
            torch.autograd.backward([out for out, _ in learning], [grad for _, grad in learning])


def _mark_towers(pred: torch.Tensor | Embeddings) -> None:
    """Let the backward pass of each tower begin at what it has given; captions, which come last, go first."""
    if isinstance(pred, Embeddings):
        at_gradient(pred.text, _BACKWARD["encode_text"])
    at_gradient(pred.image if isinstance(pred, Embeddings) else pred, _BACKWARD["encode_image"])


def mean_of_all(loss: torch.Tensor) -> torch.Tensor:
    """The mean of a loss over all processes, without gradients."""
    mean = loss.detach().clone()
    if world_size() > 1:
        dist.all_reduce(mean)
        mean /= world_size()
    return mean


def _uses_the_batch(module: torch.nn.Module) -> bool:
    """Whether a module is a batch norm that normalises by the statistics of the batch it is given."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _unrounded(values: torch.Tensor) -> torch.Tensor:
    """The values in float32 where autocast has given them fewer bits."""
    return values.float() if values.dtype.itemsize < 4 else values
