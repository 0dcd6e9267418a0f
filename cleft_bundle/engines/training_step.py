"""One training step of a dual encoder, in the form that MONAI's trainers take as ``iteration_update``."""

from __future__ import annotations

from collections.abc import Iterator
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
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import ends_group
from cleft_bundle.networks.protocol import DualNetwork, Embeddings

PRECISIONS = {"bfloat16": torch.bfloat16}


class TrainingStep:
    """Forward, loss, backward and update, for batches that need not fit into memory at once.

    With ``chunk_size`` the embeddings of the whole batch are computed without gradients, chunk by chunk; the loss over
    all of them gives the gradient of each embedding; then each chunk is run again, with gradients and with the same
    dropout, and takes on its share. The result is the gradient of the whole batch; memory is that of one chunk, and
    time that of one more forward pass.

    Under ``torch.distributed`` gradients are averaged over the processes before the update. MONAI's
    ``accumulation_steps`` of the trainer are heeded: they add up gradients of several batches, each with its own
    negatives. As with MONAI's own step each batch counts ``1 / accumulation_steps``, in an epoch's last and smaller
    group too, and groups begin anew with each epoch.

    Batch norm that is trained sees one chunk, or one process's batch: neither is the whole one, so that both are
    refused.

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

    def __call__(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Train on one batch.

        Returns:
            ``image``, ``label``, ``pred`` (the embeddings) and ``loss``, as MONAI's own iteration does.

        Raises:
            BundleError: where the loss is not a finite number, or ``chunk_size`` or the number of processes does not
                go with the network or the objective.
        """
        image, target, args, text = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        share = engine.accumulation_steps
        before = (engine.state.iteration - 1) % engine.state.epoch_length  # steps of this epoch
        if before % share == 0:
            engine.optimizer.zero_grad(set_to_none=True)
        engine.network.train()
        self._check(engine, len(image))
        if self.chunk_size is None:
            with self._autocast(image.device):
                pred = engine.inferer(image, engine.network, *args, **text)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            loss = self._loss(engine, pred, target)
            (loss / share).backward()
        else:
            pred, loss = self._in_chunks(engine, image, target, text, share)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if ends_group(before + 1, engine.state.epoch_length, share):
            average_gradients(engine.network)
            if self.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_grad_norm)
            engine.optimizer.step()
            engine.network.after_update()
            engine.fire_event(IterationEvents.MODEL_COMPLETED)
        engine.state.output = {Keys.IMAGE: image, Keys.LABEL: target, Keys.PRED: pred, Keys.LOSS: loss.detach()}
        return engine.state.output

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
        if world_size() > 1:
            raise BundleError(f"projection: {where}, which no process has as a whole; set projection to linear")
        if images < 2:
            raise BundleError(f"batch_size: {where}, but a batch has one image; choose another batch_size")

    def _loss(self, engine: SupervisedTrainer, pred: torch.Tensor | Embeddings, target: torch.Tensor) -> torch.Tensor:
        exact = tree_map_only(torch.Tensor, _unrounded, pred)
        loss = engine.loss_function(exact, target) + engine.network.penalty()
        if not torch.isfinite(loss):
            raise BundleError(
                f"the loss is {float(loss)} in step {engine.state.iteration}: a lower learning_rate or max_grad_norm 1 "
                "may help; checkpoints written so far are kept"
            )
        return loss

    def _in_chunks(
        self,
        engine: SupervisedTrainer,
        image: torch.Tensor,
        target: torch.Tensor,
        text: dict[str, torch.Tensor],
        share: int,
    ) -> tuple[Embeddings, torch.Tensor]:
        network: DualNetwork = engine.network
        images, captions = list(self._chunks(image)), list(self._chunks(text["input_ids"], text["attention_mask"]))
        seeds = torch.randint(2**62, (len(images) + len(captions),)).tolist()
        work = [(network.encode_image, part) for part in images] + [(network.encode_text, part) for part in captions]
        with torch.no_grad():
            embedded = [
                _unrounded(self._encode(encode, part, seed)) for (encode, part), seed in zip(work, seeds, strict=True)
            ]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        leaves = [part.requires_grad_() for part in embedded]
        all_images, all_captions = torch.cat(leaves[: len(images)]), torch.cat(leaves[len(images) :])
        pred = network.pair(all_images, all_captions, text["caption_index"])
        loss = self._loss(engine, pred, target)
        (loss / share).backward()
        for (encode, part), seed, leaf in zip(work, seeds, leaves, strict=True):
            output = self._encode(encode, part, seed)
            if output.requires_grad and leaf.grad is not None:  # a frozen tower has nothing to learn
                output.backward(leaf.grad.to(output.dtype))
        return pred, loss

    def _chunks(self, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        yield from zip(*(tensor.split(self.chunk_size) for tensor in tensors), strict=True)

    def _encode(self, encode: Any, part: tuple[torch.Tensor, ...], seed: int) -> torch.Tensor:
        """Run a tower under random numbers that come out the same the second time."""
        device = part[0].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), self._autocast(device):
            torch.manual_seed(seed)
            return encode(*part)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None)


def average_gradients(network: torch.nn.Module) -> None:
    """Average the gradients of a network over all processes, in one exchange; alone, do nothing.

    It stands in for ``DistributedDataParallel``, which knows neither chunks nor parameters without a gradient.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


def _uses_the_batch(module: torch.nn.Module) -> bool:
    """Whether a module is a batch norm that normalises by the statistics of the batch it is given."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _unrounded(values: torch.Tensor) -> torch.Tensor:
    """The values in float32 where autocast has given them fewer bits."""
    return values.float() if values.dtype.itemsize < 4 else values
