"""Classifiers of small image towers of several kinds, for the tests of what hubs take."""

from __future__ import annotations

from typing import Any

import torch

from cleft_bundle.networks import FinetunedClassifier, ImageClassifier, ImageEncoder, ZeroShotClassifier
from tests.conftest import TINY_VIT

SIDE = 56
NAMES = ["edema", "pleural effusion", "no finding"]
NORMALIZE = {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25}
TRANSFORMS = [
    {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
    {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
    NORMALIZE,
    {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
    {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
]
#: Name to model type, pooling and projection; the position embeddings of all are of another size than the images.
DINO = {
    "registers": ("dinov2_with_registers", "tokens_prenorm", "linear"),
    "no registers": ("dinov2", "cls", "linear"),
    "mlp": ("dinov2_with_registers", "mean_patches", 8),
}
TOWERS = DINO | {"vit": ("vit", "cls", "linear")}


def tower(model_type: str, pooling: Any, projection: Any, **config: Any) -> ImageEncoder:
    """An image tower whose position embeddings are of images of 70 px."""
    values = TINY_VIT | {"model_type": model_type, "hidden_size": 32, "image_size": 70, "initializer_range": 0.1}
    if model_type != "dinov2_with_registers":
        del values["num_register_tokens"]
    values |= {} if model_type == "vit" else {"layerscale_value": 1.0}
    return ImageEncoder(values | config, embedding_dim=16, pooling=pooling, projection=projection)


def zero_shot(*kind: Any, transforms: Any = TRANSFORMS, **config: Any) -> ZeroShotClassifier:
    """A calibrated classifier of class weights."""
    classifier = ZeroShotClassifier(
        tower(*kind, **config), NAMES, "multilabel", {"image_size": SIDE, "transforms": transforms}
    )
    draw = torch.Generator().manual_seed(0)
    classifier.class_weights = torch.randn(3, 16, generator=draw)
    classifier.logit_scale = torch.tensor(1.5)
    classifier.calibrate(1.7, [0.3, -0.2, 0.1], {"edema": 0.5})
    return classifier.eval()


def finetuned(*kind: Any) -> FinetunedClassifier:
    """A calibrated classifier with a linear head on the features."""
    network = ImageClassifier(tower(*kind), NAMES, "multiclass", {"image_size": SIDE, "transforms": TRANSFORMS})
    classifier = FinetunedClassifier(network)
    classifier.calibrate(0.6, [0.3, -0.2, 0.1], {})
    return classifier.eval()


def pixels(number: int = 4) -> torch.Tensor:
    """Normalised images."""
    return 2 * torch.randn(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
