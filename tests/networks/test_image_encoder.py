import pytest
import torch
from transformers import AutoModel

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageEncoder
from tests.conftest import TINY_VIT


@pytest.mark.parametrize("pooling", ["tokens_prenorm", "cls", "mean_patches"])
def test_embeddings_are_unit_vectors_of_the_right_width(pooling, images):
    embedding = ImageEncoder(TINY_VIT, embedding_dim=8, pooling=pooling)(images)
    assert embedding.shape == (4, 8)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


def test_poolings_match_a_reference_from_the_plain_model(images):
    features = {}
    for pooling in ("tokens_prenorm", "cls", "mean_patches"):
        encoder = ImageEncoder(TINY_VIT, pooling=pooling).eval()
        features[pooling] = encoder._pool(images)
    captured = []
    encoder.backbone.layernorm.register_forward_pre_hook(lambda module, args: captured.append(args[0]))
    normed = encoder.backbone(images).last_hidden_state
    torch.testing.assert_close(features["tokens_prenorm"], captured[0].mean(dim=1))
    torch.testing.assert_close(features["cls"], normed[:, 0])
    torch.testing.assert_close(features["mean_patches"], normed[:, 3:].mean(dim=1))  # one class, two register tokens


def test_random_weights_depend_on_the_seed_only():
    torch.manual_seed(1)
    first = ImageEncoder(TINY_VIT, seed=5)
    torch.manual_seed(2)
    same, other = ImageEncoder(TINY_VIT, seed=5), ImageEncoder(TINY_VIT, seed=6)
    for (name, a), b in zip(first.named_parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.projection.weight, other.projection.weight)


def test_loads_a_local_folder(tmp_path, images):
    encoder = ImageEncoder(TINY_VIT, seed=3).eval()
    encoder.backbone.save_pretrained(tmp_path / "vit")
    loaded = ImageEncoder(str(tmp_path / "vit"), seed=3).eval()
    torch.testing.assert_close(loaded(images), encoder(images))
    assert isinstance(loaded.backbone, type(AutoModel.from_pretrained(tmp_path / "vit")))


def test_a_frozen_backbone_leaves_only_the_projection_trainable():
    names = {name for name, p in ImageEncoder(TINY_VIT, trainable=False).named_parameters() if p.requires_grad}
    assert names == {"projection.weight", "projection.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "/nowhere/vit"}, "image_backbone: the folder '/nowhere/vit' does not exist"),
        ({"backbone": {"hidden_size": 4}}, "needs 'model_type'"),
        ({"backbone": {"model_type": "no_such_model"}}, "no_such_model"),
        ({"backbone": TINY_VIT, "pooling": "max"}, "expected one of tokens_prenorm"),
    ],
)
def test_wrong_use_is_refused_in_one_line(arguments, message):
    with pytest.raises(BundleError, match=message) as caught:
        ImageEncoder(**arguments)
    assert "\n" not in str(caught.value)
