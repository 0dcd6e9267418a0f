"""Parameter groups of the optimizer, with learning rate and weight decay of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import CLEFT, ImageClassifier, TrainableClassifier


def adamw(
    network: CLEFT | ImageClassifier | TrainableClassifier,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool = True,
) -> torch.optim.AdamW:
    """AdamW on the groups of :func:`parameter_groups`.

    Args:
        network: see there.
        lr: ``learning_rate`` there.
        backbone_lr: ``backbone_learning_rate`` there.
        weight_decay: see there.
        layer_decay: see there.
        betas: of :class:`torch.optim.AdamW`, as the two that follow.
        eps: of AdamW.
        fused: of AdamW.
    """
    groups = parameter_groups(network, lr, backbone_lr, weight_decay, layer_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused)


def sgd(network: nn.Module, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> torch.optim.SGD:
    """Stochastic gradient descent on all that a network trains, as prompt tuning has it.

    Args:
        network: of which some parameters take gradients.
        lr: of :class:`torch.optim.SGD`, as all that follow.
        momentum: of SGD.
        weight_decay: of SGD.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)


def parameter_groups(
    network: CLEFT | ImageClassifier | TrainableClassifier,
    learning_rate: float,
    backbone_learning_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a network for the optimizer.

    The pretrained image backbone has a learning rate of its own, smaller than that of the parts that start at random
    (adapters, projections, logit scale). Vectors and scalars (biases, norms, layer scales, tokens, the logit scale)
    are not decayed, as in CLEFT.

    Args:
        network: the dual encoder, or a classifier of images.
        learning_rate: of adapters, projections, the logit scale, a learnt prompt and a head.
        backbone_learning_rate: of the image backbone's last layers.
        weight_decay: of the matrices.
        layer_decay: factor on the learning rate from each block of the image backbone to the one before, above 0 and
            at most 1, which is the same for all (Clark et al., "ELECTRA", ICLR 2020, section 3.1).

    Returns:
        parameter groups, none of them empty.

    Raises:
        BundleError: where ``layer_decay`` is out of range, or nothing is left to train.
    """
    if not 0 < layer_decay <= 1:
        raise BundleError(f"layer_decay: expected above 0 and at most 1, got {layer_decay}")
    depths = network.image_encoder.depths()
    last = len(network.image_encoder.blocks) + 1
    base = learning_rate if network.image_encoder.adapted else backbone_learning_rate
    backbone_rates = {
        id(parameter): base * layer_decay ** (last - depths[name])
        for name, parameter in network.image_encoder.backbone.named_parameters()
    }
    # scalars stand apart: of a network that is divided among processes they are what each process has as a whole
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            rate = backbone_rates.get(id(parameter), learning_rate)
            decay = weight_decay if sum(side > 1 for side in parameter.shape) > 1 else 0.0
            groups.setdefault((rate, decay, parameter.ndim == 0), []).append(parameter)
    if not groups:
        raise BundleError("the network has no trainable parameter: both towers are frozen and there is no prompt")
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay, _), params in groups.items()]
