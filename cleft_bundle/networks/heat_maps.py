"""Heat maps of where an image tower looks, over its patches for any direction of the shared space.

A direction is the embedding of a prompt, or any other vector; what a map explains is the product of the image's
embedding with it. Class and register tokens take part in the computation and are left out of the maps. Of a classifier,
:func:`class_maps` explains the scores that it reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.modes import evaluating
from cleft_bundle.networks.protocol import Network
from cleft_bundle.vocabulary import Task

Method = Literal["attention", "occlusion", "similarity"]

#: Of :func:`class_maps`, and the value that pictures show in the strongest colour.
UNIT, SCALE = "log-odds per 1 % of the picture", 0.5

_STRONGEST = 0.95  # an attention near 1 leaves nothing to attend to instead, and its removal has no finite price


def heat_map(
    network: Network, image: torch.Tensor, direction: torch.Tensor, method: Method = "attention"
) -> torch.Tensor:
    """Map onto the patches of images what speaks for each of K directions.

    ``attention``: what the score would lose, to first order, if the later half of the blocks could not attend to a
    patch and gave its attention to the other tokens in proportion: A / (1 - A) * (dS/dA - sum(A * dS/dA)), summed over
    heads, queries and blocks, of which each is brought to the mean of their standard deviations, so that none outweighs
    the others. What a patch says by itself, it keeps: the values are some thirds of those of ``occlusion``. One
    forward pass, and one backward pass a direction. Related: Chefer et al., ICCV 2021, who rectify A * dS/dA and
    multiply it through the blocks.

    ``occlusion``: what the score loses when the pixels of a patch become 0, the mean of the normalisation (Zeiler and
    Fergus, ECCV 2014). One forward pass a patch, however many directions: the slowest, and right for any tower.

    ``similarity``: what each patch token adds to the score. With a linear projection and the poolings
    ``tokens_prenorm`` and ``mean_patches`` this is exact: the embedding is a mean of projected tokens, and all tokens'
    values (with ``tokens_prenorm`` those of class and register tokens as well) add up to the score. With ``cls``, or
    with an mlp, nothing adds up, and the map is the cosine of each projected patch token with the direction. After
    the last block a token holds what it gathered from others: exact as a sum, this says little about places.

    Args:
        network: a ``CLEFT``, a ``ZeroShotClassifier``, an ``ImageEncoder``, or for the first two methods a
            ``DualEncoder``. It is left as it was, and is used in evaluation mode.
        image: float tensor [B, 3, H, W], as the network takes it.
        direction: float tensor [K, D], or [B, K, D] where each image has its own.
        method: as above.

    Returns:
        maps [B, K, h, w] over the patches, without gradient, in the unit of the score: positive for the direction,
        negative against it.

    Raises:
        BundleError: where the tower is no vision transformer with one token a patch, or the method does not fit it.
    """
    require_one_of("method", method, get_args(Method))
    size = _patch_size(network)
    grid = image.shape[2] // size, image.shape[3] // size
    if direction.ndim == 2:
        direction = direction[None]
    if direction.ndim != 3 or len(direction) not in (1, len(image)):
        raise BundleError(f"direction: expected [K, D] or [B, K, D], got a tensor {tuple(direction.shape)}")
    with evaluating(network), torch.inference_mode(mode=False):
        image, direction = image.detach().clone(), direction.detach().clone().to(image.device)
        direction = direction.expand(len(image), -1, -1)
        explain = {"attention": _attention, "occlusion": _occlusion, "similarity": _similarity}[method]
        return explain(network, image, direction, grid).unflatten(2, grid)


def pixel_map(
    network: Network, image: torch.Tensor, direction: torch.Tensor, method: Method = "attention", steady: bool = True
) -> torch.Tensor:
    """Map onto the pixels of images what speaks for each of K directions: :func:`heat_map`, spread by interpolation.

    Args:
        network: as for :func:`heat_map`.
        image: float tensor [B, 3, H, W].
        direction: as for :func:`heat_map`.
        method: as for :func:`heat_map`.
        steady: take the mean over the image and four copies that are moved by a third of a patch up, down, left and
            right, each map moved back. Where the grid of patches happens to lie then matters less, and single patches
            that draw attention without showing anything lose their weight. Five times the work.

    Returns:
        maps [B, K, H, W], without gradient.
    """
    step = max(1, _patch_size(network) // 3)
    moves = [(0, 0), *([(-step, 0), (step, 0), (0, -step), (0, step)] if steady else [])]
    size = image.shape[2], image.shape[3]
    total = torch.zeros(())
    for down, right in moves:
        maps = _spread(heat_map(network, _move(image, down, right), direction, method), size)
        total = total.to(maps.device) + _move(maps, -down, -right)
    return total / len(moves)


def _patch_size(network: Network) -> int:
    size = network.patch_size
    if size is None:
        raise BundleError(f"heat map: {type(network).__name__} holds no vision transformer with square patches")
    return size


def _spread(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps [B, K, h, w] as [B, K, H, W]; what lies beyond the last whole patch is filled from it."""
    rows, columns = maps.shape[-2:]
    seen = size[0] // rows * rows, size[1] // columns * columns
    spread = F.interpolate(maps, seen, mode="bilinear", align_corners=False)
    return F.pad(spread, (0, size[1] - seen[1], 0, size[0] - seen[0]), mode="replicate")


def _move(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images [B, C, H, W] moved within their frame; what comes in repeats the border."""
    room = max(abs(down), abs(right))
    padded = F.pad(image, (room, room, room, room), mode="replicate")
    rows, columns = image.shape[2:]
    return padded[:, :, room - down : room - down + rows, room - right : room - right + columns]


@dataclass(frozen=True)
class Head:
    """Calibrated logits from the embeddings that a network gives of images.

    Args:
        weights: [K, D].
        bias: [K].
        task: ``multilabel`` or ``multiclass``.
    """

    weights: torch.Tensor
    bias: torch.Tensor
    task: Task

    @classmethod
    def of(cls, network: Any) -> Head:
        """The head of a classifier, with its calibration.

        Raises:
            BundleError: where it is in a form that cannot be looked into.
        """
        head = network.calibrated_head()
        if head is None:
            name = type(network).__name__
            raise BundleError(f"heat map: {name} shows no maps; they need a model.pt or a finetuned.pt")
        weights, bias = head
        return cls(weights, bias, network.task)

    def directions(self, embedding: torch.Tensor) -> torch.Tensor:
        """First-order directions of each class's score: the gradient of its log-odds, log(p / (1 - p)).

        For ``multilabel`` it is the class's weights, which hold its negative prompt already. For ``multiclass`` they
        are set against the other classes' weights, each by its share of what is left to them: against a rival more
        than against what is out of the question.

        Args:
            embedding: [B, D].

        Returns:
            [B, K, D].
        """
        if self.task == "multilabel":
            return self.weights.expand(len(embedding), -1, -1)
        logits = embedding @ self.weights.T + self.bias
        itself = torch.eye(len(self.weights), dtype=torch.bool, device=logits.device)
        others = logits[:, None, :].masked_fill(itself, -torch.inf).softmax(dim=2)
        return self.weights - others @ self.weights


def class_maps(
    network: Network,
    image: torch.Tensor,
    head: Head,
    classes: Sequence[int],
    method: Method = "attention",
    steady: bool = True,
) -> torch.Tensor:
    """Map onto the pixels of images what speaks for classes, in the unit of their calibrated scores.

    The one way from a classifier to a heat map: inference, the report of an evaluation and the pointing game go it.

    Args:
        network: as for :func:`heat_map`, or a ``FinetunedClassifier`` for ``attention`` and ``occlusion``.
        image: float tensor [B, 3, H, W].
        head: of the scores that are explained; see :meth:`Head.directions`.
        classes: the places of the K' classes that maps are wanted of.
        method: as for :func:`heat_map`.
        steady: as for :func:`pixel_map`.

    Returns:
        maps [B, K', H, W], without gradient, in :data:`UNIT`: what the log-odds of the calibrated score lose in the way
        of the method for each hundredth of the picture, whatever the size of picture and patches.
    """
    size = _patch_size(network)
    image = image.to(head.weights.device)
    with evaluating(network), torch.no_grad():
        directions = head.directions(network.embed(image))[:, list(classes)]
    patches = (image.shape[2] // size) * (image.shape[3] // size)
    return pixel_map(network, image, directions, method, steady) * (patches / 100)


def _attention(network: Network, image: torch.Tensor, direction: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    patches = grid[0] * grid[1]
    with _attention_weights(network) as weights, torch.enable_grad():
        embedding = network.embed(image.requires_grad_())
    # windows are rows of their own, and see less than the image
    if not weights or any(w.shape[-1] < patches or len(w) != len(image) for w in weights):
        raise BundleError(
            f"method attention: expected attention over {patches} patches in every block, found "
            f"{[w.shape[-1] for w in weights] or 'no attention'} tokens; occlusion works for any tower"
        )
    later = weights[len(weights) // 2 :]
    maps = []
    for vectors in direction.unbind(dim=1):
        gradients = torch.autograd.grad((embedding * vectors).sum(), later, retain_graph=True)
        parts = torch.stack([removal(a.detach(), g)[:, -patches:] for a, g in zip(later, gradients, strict=True)])
        spreads = parts.std(dim=2, keepdim=True)
        equal = parts / spreads.clamp(min=torch.finfo(parts.dtype).tiny) * spreads.mean(dim=0)
        maps.append(equal.sum(dim=0))
    return torch.stack(maps, dim=1)


def removal(attention: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Loss of a score when a token gets no attention and its share goes to the others, if the score were linear.

    Args:
        attention: [B, heads, T, T], rows (queries) add up to 1.
        gradient: of the score with respect to it.

    Returns:
        [B, T], summed over heads and queries.
    """
    mean = (attention * gradient).sum(dim=-1, keepdim=True)
    odds = attention / (1 - attention).clamp(min=1 - _STRONGEST)
    return (odds * (gradient - mean)).sum(dim=(1, 2))


@torch.no_grad()
def _occlusion(network: Network, image: torch.Tensor, direction: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    size = _patch_size(network)
    whole = network.embed(image)
    losses = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            covered = image.clone()
            covered[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size] = 0
            losses.append(((whole - network.embed(covered))[:, None] * direction).sum(dim=2))
    return torch.stack(losses, dim=2)


@torch.no_grad()
def _similarity(network: Network, image: torch.Tensor, direction: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    encoder = network.tower
    if encoder is None:
        raise BundleError(
            f"method similarity: {type(network).__name__} does not say how it pools; use attention or occlusion"
        )
    source = encoder.blocks[-1] if encoder.pooling == "tokens_prenorm" else encoder.backbone
    if encoder.pooling == "pooled":
        raise BundleError("method similarity: what a model's own pooling makes of a token is not known; use occlusion")
    outputs: list[Any] = []
    handle = source.register_forward_hook(lambda _module, _arguments, output: outputs.append(output))
    try:
        network.embed(image)
    finally:
        handle.remove()
    tokens = outputs[0] if isinstance(outputs[0], torch.Tensor) else outputs[0][0]
    patches = grid[0] * grid[1]
    if tokens.ndim != 3 or tokens.shape[1] != patches + encoder.prefix_tokens:
        raise BundleError(f"method similarity: expected {patches} patch tokens, got a tensor {tuple(tokens.shape)}")
    projected = encoder.projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
    if encoder.pooling == "cls" or not isinstance(encoder.projection, nn.Linear):
        return (F.normalize(projected[:, -patches:], dim=-1) @ direction.mT).transpose(1, 2)
    pooled = projected if encoder.pooling == "tokens_prenorm" else projected[:, -patches:]
    # F.normalize divided the mean of these by its norm; the same division makes the parts add up
    norm = pooled.mean(dim=1, keepdim=True).norm(dim=2, keepdim=True)
    return (pooled[:, -patches:] / norm @ direction.mT).transpose(1, 2) / pooled.shape[1]


@contextmanager
def _attention_weights(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the attention [B, heads, T, T] of each block that runs; kernels that give none pause meanwhile."""
    weights: list[torch.Tensor] = []

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
        found = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(found, torch.Tensor) or found.ndim != 4 or found.shape[-1] != found.shape[-2]:
            return
        if not any(found is other for other in weights):  # some modules hand on what one within them gave
            weights.append(found)

    configs = {id(m.config): m.config for m in network.modules() if isinstance(m, PreTrainedModel)}.values()
    kernels = [(config, config._attn_implementation) for config in configs]
    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        for config, _ in kernels:
            config._attn_implementation = "eager"
        yield weights
    finally:
        for config, kernel in kernels:
            config._attn_implementation = kernel
        for hook in hooks:
            hook.remove()
