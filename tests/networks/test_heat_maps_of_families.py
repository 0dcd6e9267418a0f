"""Heat maps of towers without one token a patch: occlusion, and one clear line for the rest."""

import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.networks.heat_maps import heat_map, pixel_map
from tests.networks.image_families import config


def tower(family, pooling="mean_patches"):
    return ImageEncoder(config(family), embedding_dim=8, pooling=pooling).eval()


@pytest.mark.parametrize("family", ["convnext", "resnet", "swin"])
def test_occlusion_is_right_for_any_tower(family):
    encoder, image, direction = tower(family), torch.randn(1, 3, 64, 96), torch.randn(1, 8)
    found = heat_map(encoder, image, direction, "occlusion")
    assert found.shape == (1, 1, 2, 3)
    covered = image.clone()
    covered[:, :, 32:, 64:] = 0
    with torch.no_grad():
        lost = ((encoder(image) - encoder(covered)) * direction).sum()
    assert float(found[0, 0, 1, 2]) == pytest.approx(float(lost), abs=1e-6)
    assert pixel_map(encoder, image, direction, "occlusion", steady=False).shape == (1, 1, 64, 96)


@pytest.mark.parametrize("family", ["convnext", "resnet", "swin"])
def test_attention_is_refused_where_no_token_sees_the_image(family):
    with pytest.raises(BundleError, match=r"^method attention: .*occlusion works for any tower$"):
        heat_map(tower(family), torch.randn(2, 3, 64, 64), torch.randn(1, 8), "attention")


@pytest.mark.parametrize(("family", "pooling"), [("convnext", "mean_patches"), ("siglip_vision_model", "pooled")])
def test_similarity_is_refused_where_tokens_do_not_add_up(family, pooling):
    with pytest.raises(BundleError, match=r"^method similarity: "):
        heat_map(tower(family, pooling), torch.randn(1, 3, 64, 64), torch.randn(1, 8), "similarity")


@pytest.mark.parametrize("family", ["siglip_vision_model", "vit", "deit", "dinov3_vit", "clip_vision_model"])
@pytest.mark.parametrize("method", ["attention", "similarity"])
def test_other_vision_transformers_have_maps(family, method):
    encoder, image, direction = tower(family), torch.randn(2, 3, 64, 32), torch.randn(1, 8)
    found = heat_map(encoder, image, direction, method)
    assert found.shape == (2, 1, 4, 2)
    if method == "similarity":  # the values of the patches add up to the score
        with torch.no_grad():
            score = encoder(image) @ direction[0]
        torch.testing.assert_close(found.sum(dim=(1, 2, 3)), score, atol=1e-5, rtol=0)
