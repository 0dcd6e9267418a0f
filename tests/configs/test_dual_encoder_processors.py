"""What the configs make of an image and a caption is what a dual encoder's own processor makes of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cleft_bundle.networks.dual_towers import pooled
from tests.conftest import ROOT, save_dual_encoder

CAPTIONS = ["edema", "a chest x ray of a patient with pleural effusion", "No Finding"]


def parsed(source):
    """Transforms, tokenizer and network of the configs."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", "net_dual_encoder.json")])
    parser.update({"dual_encoder": source, "bundle_root": str(ROOT)})
    return [parser.get_parsed_content(name) for name in ("validate#preprocessing", "tokenize", "network_def")]


@torch.no_grad()
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_the_same_pixels_and_words_have_the_library_s_own_embeddings(family, tmp_path):
    source = save_dual_encoder(tmp_path / family, family)
    grey = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(grey).save(tmp_path / "image.png")
    transforms, tokenize, network = parsed(source)
    image = transforms({"image": str(tmp_path / "image.png")})["image"]
    found = network.eval()(image[None].repeat(3, 1, 1, 1), **tokenize(CAPTIONS))

    model = AutoModel.from_pretrained(source).eval()
    inputs = AutoImageProcessor.from_pretrained(source)(Image.open(tmp_path / "image.png").convert("RGB"))
    inputs = {name: torch.as_tensor(np.array(value)) for name, value in inputs.items()}
    tokenizer = AutoTokenizer.from_pretrained(source)
    if family == "clip":
        tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
        tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    else:
        length = model.config.text_config.max_position_embeddings
        lower = [caption.lower() for caption in CAPTIONS]
        tokens = {"input_ids": tokenizer(lower, padding="max_length", max_length=length, return_tensors="pt").input_ids}
    for own, ours in (
        (model.get_image_features(**inputs), found.image[:1]),
        (model.get_text_features(**tokens), found.text),
    ):
        feature = own if isinstance(own, torch.Tensor) else pooled(own)
        torch.testing.assert_close(ours, F.normalize(feature, dim=-1), atol=1e-6, rtol=0)
