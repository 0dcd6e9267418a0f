from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DualEncoder, FinetunedClassifier, ImageClassifier, ImageEncoder, ZeroShotClassifier
from cleft_bundle.networks.heat_maps import Head, class_maps, heat_map, pixel_map, removal
from cleft_bundle.networks.protocol import Network
from tests.conftest import TINY_VIT

METHODS = ("attention", "occlusion", "similarity")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
OTHERS = {
    "vit": {"model_type": "vit", "patch_size": 7, "image_size": 28, **SMALL},
    "siglip": {"model_type": "siglip_vision_model", "patch_size": 7, "image_size": 28, **SMALL},
    "dinov2": {"model_type": "dinov2", "patch_size": 7, "image_size": 28, **SMALL},
}


@pytest.fixture
def directions():
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


def encoder(backbone=TINY_VIT, pooling="tokens_prenorm", **arguments):
    return ImageEncoder(backbone, embedding_dim=8, pooling=pooling, **arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pooling", ["tokens_prenorm", "cls", "mean_patches"])
def test_maps_are_finite_differ_between_directions_and_leave_the_network_as_it_was(pooling, method, images, directions):
    network = encoder(pooling=pooling).train()
    network.projection.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kernel = network.backbone.config._attn_implementation
    with torch.inference_mode():
        maps = heat_map(network, images, directions, method)
    assert maps.shape == (4, 3, 2, 2)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    assert not torch.allclose(maps[:, 0], maps[:, 1])
    assert network.training
    assert not network.projection.training
    assert network.backbone.config._attn_implementation == kernel != "eager"
    assert not any(module._forward_hooks for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_frozen_towers_and_non_square_images_work(method, directions):
    network = encoder(trainable=False).requires_grad_(requires_grad=False)
    image = torch.randn(2, 3, 42, 28)
    assert heat_map(network, image, directions, method).shape == (2, 3, 3, 2)
    assert pixel_map(network, image, directions, method).shape == (2, 3, 42, 28)


@pytest.mark.parametrize("method", METHODS)
def test_a_classifier_a_dual_encoder_of_ours_and_their_tower_agree(method, make_network, images, directions):
    network = make_network().eval()
    classifier = ZeroShotClassifier(network.image_encoder, ["a", "b", "c"], "multilabel")
    expected = heat_map(network.image_encoder, images, directions, method)
    torch.testing.assert_close(heat_map(network, images, directions, method), expected)
    torch.testing.assert_close(heat_map(classifier, images, directions, method), expected)


@pytest.mark.parametrize("pooling", ["tokens_prenorm", "mean_patches"])
def test_similarity_adds_up_to_the_score(pooling, images, directions):
    network = encoder(pooling=pooling).eval()
    score = (network(images) @ directions.T).detach()
    maps = heat_map(network, images, directions, "similarity")
    rest = torch.zeros(4, 3)
    if pooling == "tokens_prenorm":  # the class and the register tokens
        tokens = network.backbone.encoder(network.backbone.embeddings(images)).last_hidden_state
        projected = network.projection(tokens)
        norm = projected.mean(1, keepdim=True).norm(dim=2, keepdim=True)
        rest = (projected / norm @ directions.T)[:, :3].sum(1).detach() / tokens.shape[1]
    torch.testing.assert_close(maps.sum((2, 3)) + rest, score, atol=1e-5, rtol=1e-4)


def test_similarity_of_a_pooling_without_a_sum_is_a_cosine(images, directions):
    unit = torch.nn.functional.normalize(directions, dim=1)
    for network in (encoder(pooling="cls"), encoder(projection=4)):
        assert heat_map(network, images, unit, "similarity").abs().max() <= 1 + 1e-5


def test_occlusion_is_the_loss_of_score(images, directions):
    network = encoder().eval()
    covered = images.clone()
    covered[:, :, 14:, :14] = 0
    expected = ((network(images) - network(covered)) @ directions.T).detach()
    torch.testing.assert_close(heat_map(network, images, directions, "occlusion")[:, :, 1, 0], expected)


def test_removal_is_exact_for_a_linear_score():
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(5), size=(2, 3, 5))
    gradient = rng.standard_normal((2, 3, 5, 5))
    expected = np.zeros((2, 5))
    for token in range(5):
        without = attention.copy()
        without[..., token] = 0
        without /= without.sum(-1, keepdims=True)
        expected[:, token] = ((attention - without) * gradient).sum((1, 2, 3))
    np.testing.assert_allclose(removal(torch.tensor(attention), torch.tensor(gradient)), expected)


def test_removal_stays_finite_where_all_attention_is_on_one_token():
    assert removal(torch.eye(4)[None, None], torch.randn(1, 1, 4, 4)).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OTHERS)
def test_other_towers_with_or_without_a_class_token_work(name, method, directions):
    network = encoder(OTHERS[name], pooling="mean_patches")
    assert heat_map(network, torch.randn(2, 3, 28, 28), directions, method).shape == (2, 3, 4, 4)


def dual_encoder(kind):
    vision = {"patch_size": 8, "image_size": 24, **SMALL}
    text = {"vocab_size": 32, "max_position_embeddings": 8, "projection_size": 16, **SMALL}
    values = {"model_type": kind, "vision_config": vision, "text_config": text}
    return DualEncoder(values | ({"projection_dim": 16} if kind == "clip" else {}))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_dual_encoders_of_others_work_but_for_similarity(kind):
    network, image = dual_encoder(kind), torch.randn(2, 3, 24, 24)
    direction = torch.randn(2, network.encode_image(image).shape[1])
    for method in ("attention", "occlusion"):
        assert heat_map(network, image, direction, method).shape == (2, 2, 3, 3)
        assert pixel_map(network, image, direction, method).shape == (2, 2, 24, 24)
    with pytest.raises(BundleError, match="DualEncoder does not say how it pools"):
        heat_map(network, image, direction, "similarity")


def test_a_spread_map_follows_the_patches_and_what_is_not_seen_repeats_the_border():
    class Bright(Network):
        """Scores the lower right patch of 3 x 3."""

        patch_size = 8

        def embed(self, image):
            return image[:, :, 16:24, 16:24].mean((2, 3))

    network = Bright()
    maps = pixel_map(network, torch.ones(1, 3, 28, 28), torch.eye(3)[:1], "occlusion", steady=False)
    assert maps[0, 0, 24:, 24:].min() == maps.max() == 1
    assert maps[0, 0, :8, :8].abs().max() == 0
    steady = pixel_map(network, torch.ones(1, 3, 28, 28), torch.eye(3)[:1], "occlusion")
    assert steady.shape == maps.shape
    assert steady[0, 0, 20, 20] > steady[0, 0, 4, 4]


def test_maps_follow_the_picture(directions):
    """Moved by a patch, a picture has its map moved by a patch, where positions tell nothing."""
    network = encoder({**TINY_VIT, "image_size": 56}).eval()
    nn.init.zeros_(network.backbone.embeddings.position_embeddings)
    image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    moved = image.roll((14, 28), (2, 3))
    for method in METHODS:
        maps, after = (heat_map(network, part, directions, method) for part in (image, moved))
        torch.testing.assert_close(after, maps.roll((1, 2), (2, 3)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_maps_change_when_weights_are_randomised_block_by_block(method, images, directions):
    """The sanity check of Adebayo et al., NeurIPS 2018: from the last block to the first."""
    network, other = encoder(seed=0).eval(), encoder(seed=1)
    maps = [heat_map(network, images, directions, method)]
    for block, source in zip(reversed(network.blocks), reversed(other.blocks), strict=True):
        block.load_state_dict(source.state_dict())
        maps.append(heat_map(network, images, directions, method))
    for before, after in pairwise(maps):
        assert not torch.allclose(before, after, rtol=1e-3, atol=1e-6)


def test_what_does_not_fit_is_refused(images, directions):
    with pytest.raises(BundleError, match="method: expected one of attention, occlusion, similarity"):
        heat_map(encoder(), images, directions, "gradcam")
    with pytest.raises(BundleError, match=r"direction: expected \[K, D\]"):
        heat_map(encoder(), images, directions[0])
    with pytest.raises(BundleError, match="holds no vision transformer with square patches"):
        heat_map(Network(), images, directions)


@pytest.mark.parametrize("method", METHODS)
def test_each_image_can_have_its_own_directions(method, images, directions):
    network = encoder()
    own = torch.stack([directions, -directions, directions * 2, directions.flip(0)])
    expected = torch.stack([heat_map(network, images[n : n + 1], own[n], method)[0] for n in range(4)])
    torch.testing.assert_close(heat_map(network, images, own, method), expected, atol=1e-6, rtol=1e-4)


def head(task, seed=2, classes=3, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return Head(scale * torch.randn(classes, 8, generator=rng), torch.randn(classes, generator=rng), task)


def log_odds(embedding, given):
    logits = embedding @ given.weights.T + given.bias
    scores = logits.softmax(1) if given.task == "multiclass" else logits.sigmoid()
    return (scores / (1 - scores)).log()


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_class_is_explained_by_what_its_score_depends_on(task, images):
    given = head(task)
    embedding = encoder().eval()(images).detach().double().requires_grad_()
    given = Head(given.weights.double(), given.bias.double(), task)
    odds = log_odds(embedding, given)
    expected = [torch.autograd.grad(odds[:, k].sum(), embedding, retain_graph=True)[0] for k in range(3)]
    torch.testing.assert_close(given.directions(embedding.detach()), torch.stack(expected, dim=1))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_map_is_the_loss_of_log_odds_for_each_hundredth_of_the_picture(task, images):
    network, given = encoder().eval(), head(task, scale=0.1)
    covered = images.clone()
    covered[:, :, 14:, :14] = 0  # a quarter of the picture
    with torch.no_grad():
        loss = log_odds(network(images), given) - log_odds(network(covered), given)
    maps = class_maps(network, images, given, [2, 0], "occlusion", steady=False)
    assert maps.shape == (4, 2, 28, 28)
    torch.testing.assert_close(maps[:, :, -1, 0], loss[:, [2, 0]] / 25, atol=1e-5, rtol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_as_strong_as_what_it_explains(method, images):
    network = encoder()
    maps, faint = (class_maps(network, images, head("multilabel", scale=scale), [1], method) for scale in (1.0, 1e-9))
    assert maps.abs().max() > 1e-6
    torch.testing.assert_close(faint * 1e9, maps, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_collapsed_network_has_empty_maps(method, task, images):
    constant = encoder().eval()
    nn.init.zeros_(constant.projection.weight)
    nn.init.ones_(constant.projection.bias)
    same = head(task)
    same = Head(same.weights[:1].expand(3, -1), same.bias, task)
    maps = class_maps(constant, images, head(task), [0, 1, 2], method)
    flat = maps - maps.mean((2, 3), keepdim=True) if method == "similarity" else maps  # whose parts add up to a score
    assert flat.abs().max() < 1e-6
    if task == "multiclass":  # classes that cannot be told apart
        assert class_maps(encoder(), images, same, [0, 1, 2], method).abs().max() < 1e-6


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_classifiers_are_explained_by_their_own_calibrated_heads(task, images):
    network = ZeroShotClassifier(encoder(), ["a", "b", "c"], task)
    network.class_weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    network.logit_scale = torch.tensor(1.5)
    network.calibrate(2.0, [0.5, 0.0, -1.0], {})
    embedding = network.eval().image_encoder(images)
    torch.testing.assert_close(
        log_odds(embedding, Head.of(network)), torch.logit(network(images)), atol=1e-4, rtol=1e-4
    )
    tuned = FinetunedClassifier(ImageClassifier(encoder(), ["a", "b", "c"], task)).eval()
    tuned.calibrate(2.0, [0.5, 0.0, -1.0], {})
    features = tuned.image_encoder.features(images)
    torch.testing.assert_close(log_odds(features, Head.of(tuned)), torch.logit(tuned(images)), atol=1e-4, rtol=1e-4)
    covered = images.clone()
    covered[:, :, :14, :14] = 0
    loss = (torch.logit(tuned(images)) - torch.logit(tuned(covered))).detach() / 25
    if task == "multilabel":
        found = class_maps(tuned, images, Head.of(tuned), [0, 1, 2], "occlusion", steady=False)
        torch.testing.assert_close(found[:, :, 0, 0], loss, atol=1e-6, rtol=1e-4)
    with pytest.raises(BundleError, match="FinetunedClassifier does not say how it pools"):
        class_maps(tuned, images, Head.of(tuned), [0], "similarity")
    with pytest.raises(BundleError, match=r"they need a model\.pt or a finetuned\.pt"):
        Head.of(encoder())
