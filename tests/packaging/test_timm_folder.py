"""A folder for timm is loaded by timm, and gives the embeddings of the tower. .ci/run runs this where timm is."""

from __future__ import annotations

import pytest
import torch
from monai.utils import optional_import
from torch.nn import functional as F

from cleft_bundle.errors import BundleError
from cleft_bundle.packaging import export_classifier
from tests.packaging.hub_towers import DINO, TOWERS, finetuned, pixels, zero_shot


@pytest.mark.parametrize("name", DINO)
def test_timm_gives_the_same_embeddings(name, tmp_path):
    timm = pytest.importorskip("timm", reason="needs timm, which needs torchvision")
    classifier = zero_shot(*DINO[name])
    (folder,) = export_classifier(classifier, tmp_path / "m", ["timm"])
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        given, features = network(pixels()), classifier.image_encoder.features(pixels())
        if name == "mlp":  # timm's heads are linear
            torch.testing.assert_close(given, features, atol=1e-6, rtol=1e-6)
        else:
            torch.testing.assert_close(F.normalize(given, dim=1), classifier.embed(pixels()), atol=1e-6, rtol=0)
    data = timm.data.resolve_model_data_config(network)
    assert [*data["mean"], *data["std"], *data["input_size"]] == [*[0.5] * 3, *[0.25] * 3, 3, 56, 56]


@pytest.mark.parametrize(("name", "pool"), [("registers", "avg"), ("no registers", "token")])
def test_open_clip_takes_the_folder_as_an_image_tower(name, pool, tmp_path):
    """As docs/hub.md has it, and as ``timm_model_name`` of a model of open_clip."""
    library, found = optional_import("open_clip")
    if not found:
        pytest.skip("needs open_clip, which needs torchvision")
    classifier = zero_shot(*DINO[name])
    (folder,) = export_classifier(classifier, tmp_path / "m", ["timm"])
    cfg = {"timm_model_name": f"local-dir:{folder}", "timm_pool": pool, "timm_proj": "", "image_size": 56}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    network = library.CustomTextCLIP(16, cfg | {"timm_model_pretrained": True}, text).eval()
    with torch.no_grad():
        given, expected = network.encode_image(pixels(), normalize=True), classifier.embed(pixels())
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)


def test_a_finetuned_tower_goes_without_its_projection(tmp_path):
    timm = pytest.importorskip("timm", reason="needs timm, which needs torchvision")
    classifier = finetuned(*DINO["registers"])
    (folder,) = export_classifier(classifier, tmp_path / "m", ["timm"])
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(pixels()), classifier.embed(pixels()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        (TOWERS["vit"], {}, "its architecture is vit"),
        (DINO["registers"], {"use_swiglu_ffn": True}, "its feed-forward layers are gated"),
        (DINO["registers"], {"layer_norm_eps": 1e-5}, "its norms have an epsilon of 1e-05"),
        (DINO["registers"], {"hidden_act": "relu"}, "its activation is relu"),
    ],
)
def test_what_timm_does_not_have_exactly_is_refused(kind, config, says, tmp_path):
    with pytest.raises(BundleError, match=f"timm: this image tower has no exact counterpart, as {says}"):
        export_classifier(zero_shot(*kind, **config), tmp_path / "m", ["timm"])
    assert list(tmp_path.iterdir()) == []
