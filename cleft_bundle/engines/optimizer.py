"""Which parameters the optimizer sees, and with which learning rate and weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from cleft_bundle.networks import CLEFT


def parameter_groups(
    network: CLEFT, learning_rate: float, backbone_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a network for AdamW.

    The pretrained image backbone has a learning rate of its own, smaller than that of the parts that start at random
    (adapters, projections, logit scale). Vectors and scalars (biases, norms, layer scales, tokens, the logit scale)
    are not decayed, as in CLEFT.

    Args:
        network: the dual encoder.
        learning_rate: of adapters, projections and the logit scale.
        backbone_learning_rate: of the image backbone.
        weight_decay: of the matrices.

    Returns:
        parameter groups, none of them empty.
    """
    backbone = {id(parameter) for parameter in network.image_encoder.backbone.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            rate = backbone_learning_rate if id(parameter) in backbone else learning_rate
            decay = weight_decay if parameter.squeeze().ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
