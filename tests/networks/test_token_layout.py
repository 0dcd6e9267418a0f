import pytest
import torch
from transformers import AutoModel

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.networks.backbones import load_backbone
from cleft_bundle.networks.token_layout import measure_layout, run_backbone
from tests.networks.image_families import CONFIGS, GIVES, config

FULLY = ("dinov2", "dinov2_with_registers", "siglip_vision_model", "clip_vision_model", "vit", "deit", "convnext")
CASES = [(family, pooling) for family, gives in GIVES.items() for pooling in gives[-1].split()]


@pytest.mark.parametrize("family", CONFIGS)
def test_what_each_family_gives_is_measured(family):
    stride, prefix, width, must_divide, poolings = GIVES[family]
    encoder = ImageEncoder(config(family), embedding_dim=8, pooling="mean_patches")
    layout = encoder.layout
    assert (layout.stride, layout.prefix, layout.must_divide) == (stride, prefix, must_divide)
    assert layout.poolings == dict.fromkeys(poolings.split(), width)
    assert encoder.training


def reference(model, pooling, prefix, image):
    """Transformers' own forward and the pooling by hand."""
    asked = {"interpolate_pos_encoding": True} if hasattr(model.embeddings, "interpolate_pos_encoding") else {}
    if type(model).__name__.startswith("Dinov2"):
        asked = {}
    captured = []
    norm = model.post_layernorm if hasattr(model, "post_layernorm") else model.layernorm
    handle = norm.register_forward_pre_hook(lambda module, given: captured.append(given[0]))
    output = model(pixel_values=image, **asked)
    handle.remove()
    if pooling == "tokens_prenorm":
        return captured[0].mean(dim=1)
    if pooling == "pooled":
        return output.pooler_output.reshape(len(image), -1)
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        return hidden.flatten(2).mean(dim=2)
    return hidden[:, 0] if pooling == "cls" else hidden[:, prefix:].mean(dim=1)


@pytest.mark.parametrize(("family", "pooling"), [case for case in CASES if case[0] in FULLY])
@torch.no_grad()
def test_features_are_those_of_transformers_from_a_folder(family, pooling, tmp_path):
    made = load_backbone(config(family), "image_backbone", seed=3)
    made.save_pretrained(tmp_path / "model")
    encoder = ImageEncoder(str(tmp_path / "model"), embedding_dim=8, pooling=pooling).eval()
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = reference(AutoModel.from_pretrained(tmp_path / "model").eval(), pooling, GIVES[family][1], image)
    assert encoder.width == expected.shape[1]
    torch.testing.assert_close(encoder.features(image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["dinov3_vit", "dinov3_convnext", "convnextv2", "resnet", "swin", "beit"])
@torch.no_grad()
def test_pooled_features_of_the_others_are_those_of_transformers(family, tmp_path):
    load_backbone(config(family), "image_backbone", seed=3).save_pretrained(tmp_path / "model")
    encoder = ImageEncoder(str(tmp_path / "model"), embedding_dim=8, pooling="pooled").eval()
    image = torch.randn(2, 3, 224, 224)
    plain = AutoModel.from_pretrained(tmp_path / "model").eval()
    expected = run_backbone(plain, image).pooler_output.flatten(1)
    torch.testing.assert_close(encoder.features(image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("family", "vision"), [("clip", "CLIPVisionModel"), ("siglip", "SiglipVisionModel")])
def test_of_a_dual_encoder_the_vision_model_is_taken(family, vision, tmp_path):
    whole = load_backbone(config(family), "image_backbone", seed=3)
    whole.save_pretrained(tmp_path / "model")
    encoder = ImageEncoder(str(tmp_path / "model"), embedding_dim=8, pooling="pooled").eval()
    assert type(encoder.backbone).__name__ == vision
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = whole.eval().vision_model(image).pooler_output
        torch.testing.assert_close(encoder.features(image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", CONFIGS)
def test_settings_build_the_tower_again(family):
    pooling = GIVES[family][-1].split()[-1]
    encoder = ImageEncoder(config(family), embedding_dim=8, pooling=pooling, seed=1).eval()
    again = ImageEncoder(**encoder.settings).eval()
    again.load_state_dict(encoder.state_dict())
    image = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(again(image), encoder(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", [f for f, gives in GIVES.items() if "tokens_prenorm" not in gives[-1]])
def test_a_pooling_that_a_family_lacks_is_refused_with_those_that_it_has(family):
    offered = ", ".join(GIVES[family][-1].split())
    with pytest.raises(BundleError, match=rf"^pooling: \w+ has no tokens_prenorm, it offers {offered}$"):
        ImageEncoder(config(family))


def test_siglip_has_no_class_token_to_pool():
    with pytest.raises(BundleError, match="SiglipVisionModel has no cls, it offers tokens_prenorm"):
        ImageEncoder(config("siglip_vision_model"), pooling="cls")


@pytest.mark.parametrize(
    ("family", "side", "says"),
    [
        ("dinov2", 100, "px is not a multiple of the image tower's 14 px patches.*last 2 px.*expected 98 or 112"),
        ("vit", 100, "expected 96 or 112"),
        ("convnext", 100, "its last 4 px would not be seen; expected 96 or 128"),
        ("vit", 9, "its last 9 px would not be seen; expected 16$"),
    ],
)
def test_a_size_whose_border_would_not_be_seen_is_refused_when_built_and_when_used(family, side, says):
    with pytest.raises(BundleError, match=f"^image_size: .*{says}"):
        ImageEncoder(config(family), pooling="mean_patches", image_size=side)
    encoder = ImageEncoder(config(family), pooling="mean_patches")
    for shape in ((1, 3, side, encoder.patch_size), (1, 3, encoder.patch_size, side)):
        with pytest.raises(BundleError, match=says):
            encoder(torch.zeros(shape))


@pytest.mark.parametrize("family", ["resnet", "swin"])
def test_where_borders_are_filled_up_every_pixel_counts(family):
    encoder = ImageEncoder(config(family), pooling="pooled", image_size=100).eval()
    image = torch.randn(1, 3, 100, 100, requires_grad=True)
    encoder.features(image).square().sum().backward()
    assert bool((image.grad[0, :, -1] != 0).any())
    assert bool((image.grad[0, :, :, -1] != 0).any())


@pytest.mark.parametrize("family", ["dinov2", "vit", "convnext"])
def test_no_pixel_of_an_allowed_size_is_left_out(family):
    encoder = ImageEncoder(config(family), pooling="mean_patches").eval()
    side = 2 * encoder.patch_size
    image = torch.randn(1, 3, side, side, requires_grad=True)
    encoder.features(image).pow(3).sum().backward()
    assert bool((image.grad != 0).any(dim=1).all())


def test_a_model_that_takes_no_plain_images_is_refused_in_one_line():
    values = {"model_type": "siglip2_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    with pytest.raises(BundleError, match=r"Siglip2VisionModel takes no images \[B, 3, H, W\]") as caught:
        ImageEncoder(values | {"num_attention_heads": 2, "patch_size": 16, "num_patches": 4})
    assert "\n" not in str(caught.value)


def test_measuring_leaves_the_random_state_and_works_without_values():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    layout = measure_layout(load_backbone(config("dinov2"), "image_backbone"))
    assert torch.equal(torch.rand(1), expected)
    with torch.device("meta"):
        assert measure_layout(load_backbone(config("dinov2"), "image_backbone")) == layout


def test_weights_that_a_folder_lacks_are_named(tmp_path, caplog):
    model = load_backbone(config("vit"), "image_backbone")
    model.pooler = None
    model.save_pretrained(tmp_path / "vit")
    load_backbone(str(tmp_path / "vit"), "image_backbone")
    assert (
        "vit has no weights for 2 parameters, which are random: pooler.dense.bias, pooler.dense.weight" in caplog.text
    )
