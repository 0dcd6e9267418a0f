import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer
from tests.conftest import ROOT, TINY_VIT, tiny_dual_encoder

TOKENIZER = str(ROOT / "configs" / "tokenizer_tiny")
CAPTIONS = ["edema", "a chest x ray of a patient with pleural effusion"]


def as_its_processor_gives(images, model_type):
    if model_type != "siglip2":
        return {"pixel_values": images}
    patches = np.stack([convert_image_to_patches(image.numpy(), 14) for image in images])
    return {
        "pixel_values": torch.from_numpy(patches),
        "pixel_attention_mask": torch.ones(len(images), 4),
        "spatial_shapes": torch.tensor([[2, 2]] * len(images)),
    }


@pytest.mark.parametrize("model_type", ["clip", "siglip", "siglip2"])
def test_it_embeds_as_the_model_itself_compares(model_type):
    network = DualEncoder(tiny_dual_encoder(model_type)).eval()
    tokens = DualEncoderTokenizer(TOKENIZER, network)(CAPTIONS)
    image = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedded, text, scale, bias = network(image, **tokens)
        captions = dict(tokens) if model_type == "clip" else {"input_ids": tokens["input_ids"]}
        expected = network.model(**as_its_processor_gives(image, model_type), **captions).logits_per_image
        assert (bias is None) == (model_type == "clip")
        logits = scale * embedded @ text.T + (0 if bias is None else bias)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        paired = network(image, **tokens, caption_index=torch.tensor([1, 0, 1])).text
    torch.testing.assert_close(paired, text[[1, 0, 1]])
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))


def test_siglip_reads_a_window_of_full_length_and_clip_the_longest_caption():
    windows = {}
    for model_type in ("clip", "siglip"):
        tokens = DualEncoderTokenizer(TOKENIZER, DualEncoder(tiny_dual_encoder(model_type)))(CAPTIONS)
        windows[model_type] = tokens["input_ids"].shape[1]
    longest = len(AutoTokenizer.from_pretrained(TOKENIZER)(CAPTIONS[1])["input_ids"])
    assert windows == {"clip": longest, "siglip": 24}


def test_what_is_no_dual_encoder_is_refused():
    with pytest.raises(BundleError, match=r"'dinov2_with_registers from a config' is a .* without get_image_features"):
        DualEncoder(TINY_VIT)


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"dual_encoder: the tokenizer of '.*none' cannot be loaded"):
        DualEncoderTokenizer(str(tmp_path / "none"), DualEncoder(tiny_dual_encoder("clip")))
