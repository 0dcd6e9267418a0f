import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import TextEncoder
from tests.conftest import TINY_GPT2

TINY_LLAMA = {
    "model_type": "llama",
    "vocab_size": 768,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CAPTIONS = ["this is a chest x ray of a patient with edema", "edema", "cardiomegaly, edema"]


@pytest.mark.parametrize("backbone", [TINY_GPT2, TINY_LLAMA])
def test_the_feature_is_the_hidden_state_at_the_first_eos(backbone, tokenize):
    encoder = TextEncoder(backbone, embedding_dim=8).eval()
    batch = tokenize(CAPTIONS)
    hidden = encoder.backbone(**batch).last_hidden_state
    lengths = batch["attention_mask"].sum(dim=1)
    for row, length in enumerate(lengths):
        assert batch["input_ids"][row, length] == tokenize.tokenizer.eos_token_id
        expected = F.normalize(encoder.projection(hidden[row, length]), dim=0)
        torch.testing.assert_close(encoder(**batch)[row], expected)


def test_a_caption_has_the_same_embedding_however_far_its_batch_is_padded(tokenize):
    encoder = TextEncoder(TINY_GPT2, lora={"r": 2}).eval()
    torch.testing.assert_close(encoder(**tokenize(CAPTIONS))[1:2], encoder(**tokenize(CAPTIONS[1:2])))


@pytest.mark.parametrize("backbone", [TINY_GPT2, TINY_LLAMA])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_and_projection_get_gradients_and_none_is_zero(backbone, checkpointing, tokenize):
    encoder = TextEncoder(backbone, lora={"r": 2}, gradient_checkpointing=checkpointing).train()
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:  # starts at zero, which would make the gradient of lora_A vanish
            torch.nn.init.normal_(parameter)
    weights = torch.randn(512, generator=torch.Generator().manual_seed(0))
    (encoder(**tokenize(CAPTIONS)) @ weights).sum().backward()
    trained = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in encoder.named_parameters() if "lora_" in n or n.startswith("projection.")}
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters() if p.grad is not None)


def test_default_lora_targets_are_those_of_cleft():
    gpt2 = TextEncoder(TINY_GPT2, lora={"r": 2})
    llama = TextEncoder(TINY_LLAMA, lora={"r": 2})
    adapted = [
        {n.split(".lora_A")[0].rsplit(".", 1)[-1] for n, _ in e.named_modules() if ".lora_A" in n}
        for e in (gpt2, llama)
    ]
    assert adapted == [{"c_attn"}, {"q_proj", "v_proj"}]


def test_the_fingerprint_tells_weights_apart_and_survives_saving_and_precision(tmp_path):
    encoder = TextEncoder(TINY_GPT2, seed=1)
    assert encoder.fingerprint != TextEncoder(TINY_GPT2, seed=2).fingerprint
    encoder.backbone.save_pretrained(tmp_path / "gpt2")
    assert TextEncoder(str(tmp_path / "gpt2"), lora={"r": 2}).fingerprint == encoder.fingerprint
    assert TextEncoder(str(tmp_path / "gpt2"), dtype="bfloat16").fingerprint == encoder.fingerprint


def test_bfloat16_weights_give_float32_embeddings_near_those_of_float32(tokenize):
    exact, rounded = TextEncoder(TINY_GPT2).eval(), TextEncoder(TINY_GPT2, dtype="bfloat16").eval()
    batch = tokenize(CAPTIONS)
    assert rounded(**batch).dtype == torch.float32
    torch.testing.assert_close(rounded(**batch), exact(**batch), atol=0.02, rtol=0)


def test_a_row_without_eos_outside_the_mask_is_refused(tokenize):
    batch = tokenize(CAPTIONS[1:2])
    with pytest.raises(ValueError, match="fills its row"):
        TextEncoder(TINY_GPT2)(batch["input_ids"], torch.ones_like(batch["attention_mask"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "./no/folder"}, "text_backbone: the folder './no/folder' does not exist"),
        ({"lora": {"target_modules": ["q_proj"]}}, "q_proj match no layer; the linear layers are c_attn"),
        ({"lora": {"rank": 3}}, "rank"),
        (
            {"backbone": {"model_type": "gptj", "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4}, "lora": {}},
            "linear layers are",
        ),
    ],
)
def test_wrong_use_is_refused_in_one_line(arguments, message):
    with pytest.raises(BundleError, match=message) as caught:
        TextEncoder(**({"backbone": TINY_GPT2} | arguments))
    assert "\n" not in str(caught.value)


def test_no_language_model_head_is_built(tokenize):
    encoder = TextEncoder(TINY_GPT2)
    assert encoder.backbone.config._attn_implementation == "sdpa"
    assert not any("lm_head" in name for name, _ in encoder.named_parameters())
    assert type(encoder.backbone) is type(AutoModel.from_config(encoder.backbone.config))
