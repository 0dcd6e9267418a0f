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
        features[pooling] = encoder.features(images)
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


def test_a_projection_of_two_layers_of_either_width(images):
    for kind, width in (("mlp", 2048), (6, 6)):
        encoder = ImageEncoder(TINY_VIT, embedding_dim=8, projection=kind)
        assert encoder.projection[0].out_features == width
        torch.testing.assert_close(encoder(images).norm(dim=1), torch.ones(4))
    with pytest.raises(BundleError, match="projection: expected linear, mlp or the width"):
        ImageEncoder(TINY_VIT, projection="deep")


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_the_first_blocks_can_be_frozen(blocks):
    encoder = ImageEncoder(TINY_VIT, frozen_blocks=blocks)
    trained = {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}
    depths = encoder.depths()
    assert trained == {name for name, depth in depths.items() if not blocks or depth > blocks}
    assert {depths["embeddings.cls_token"], depths["encoder.layer.0.norm1.weight"]} == {0, 1}
    assert depths["layernorm.weight"] == len(encoder.blocks) + 1
    assert (encoder.fingerprint is None) == (blocks == 0)


def test_more_frozen_blocks_than_there_are_are_refused():
    with pytest.raises(BundleError, match="frozen_blocks: expected 0 to 2, got 3"):
        ImageEncoder(TINY_VIT, frozen_blocks=3)


@pytest.mark.parametrize("side", [14, 42, 70])
def test_image_sides_other_than_the_one_pre_trained_on(side):
    image = torch.randn(2, 3, side, side + 14)
    assert ImageEncoder(TINY_VIT, embedding_dim=8)(image).shape == (2, 8)


@pytest.mark.parametrize(
    "backbone",
    [
        {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28},
        {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    ],
    ids=["vit", "dinov2_without_registers"],
)
def test_other_vision_transformers(backbone):
    values = backbone | {"patch_size": 14, "intermediate_size": 32}
    for pooling in ("cls", "mean_patches"):
        assert ImageEncoder(values, embedding_dim=8, pooling=pooling)(torch.randn(2, 3, 56, 56)).shape == (2, 8)


def test_gradient_checkpointing_changes_no_gradient(images):
    gradients = []
    for checkpointing in (False, True):
        encoder = ImageEncoder(TINY_VIT, embedding_dim=8, gradient_checkpointing=checkpointing).train()
        encoder(images).square().cumsum(dim=1).sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tower_stored_in_fewer_bits_is_trained_in_float32(dtype, autocast, tmp_path, images):
    """At CLEFT's learning rate an update is smaller than what bfloat16 can tell apart from the weight."""
    stored = AutoModel.from_config(ImageEncoder(TINY_VIT).backbone.config).to(dtype)
    stored.save_pretrained(tmp_path)
    encoder = ImageEncoder(str(tmp_path), embedding_dim=8).train()
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.settings["backbone"].get("dtype", "float32") == "float32"
    weights = [layer.weight for layer in encoder.blocks.modules() if isinstance(layer, torch.nn.Linear)]
    before = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-5)
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            embedding = encoder(images)
        embedding.float().square().cumsum(dim=1).sum().backward()
        optimizer.step()
    changed = torch.cat([(a != b).flatten() for a, b in zip(before, weights, strict=True)])
    assert changed.float().mean() > 0.99


def test_a_frozen_tower_stored_in_fewer_bits_embeds_images(tmp_path, images):
    ImageEncoder(TINY_VIT).backbone.to(torch.bfloat16).save_pretrained(tmp_path)
    for encoder in (ImageEncoder(str(tmp_path), trainable=False), ImageEncoder(str(tmp_path), frozen_blocks=1)):
        assert encoder(images).dtype == torch.float32
        assert encoder.fingerprint is not None
