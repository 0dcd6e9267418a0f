import torch

from cleft_bundle.engines import parameter_groups
from cleft_bundle.networks import ImageClassifier, ImageEncoder
from tests.conftest import TINY_VIT


def test_the_whole_backbone_and_the_head_learn_and_nothing_else(images):
    encoder = ImageEncoder(TINY_VIT, frozen_blocks=1)
    network = ImageClassifier(encoder, ["a", "b", "c"], "multiclass")
    logits = network(images)
    assert logits.shape == (4, 3)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    backbone = {f"image_encoder.backbone.{name}" for name, _ in encoder.backbone.named_parameters()}
    assert trained == backbone | {"head.weight", "head.bias"}
    torch.testing.assert_close(logits, network.head(encoder.features(images)))
    groups = parameter_groups(network, learning_rate=1.0, backbone_learning_rate=0.1, weight_decay=0.0)
    fast = [parameter for group in groups if group["lr"] == 1.0 for parameter in group["params"]]
    assert {id(parameter) for parameter in fast} == {id(network.head.weight), id(network.head.bias)}


def test_the_head_depends_on_the_seed_only():
    heads = [ImageClassifier(ImageEncoder(TINY_VIT), ["a"], "multilabel", seed=seed).head.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
