import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import AdaLora, Dora, Ia3, Lora, Prefix, TextEncoder
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
    encoder = TextEncoder(backbone, embedding_dim=8, peft="none").eval()
    batch = tokenize(CAPTIONS)
    hidden = encoder.backbone(**batch).last_hidden_state
    lengths = batch["attention_mask"].sum(dim=1)
    for row, length in enumerate(lengths):
        assert batch["input_ids"][row, length] == tokenize.tokenizer.eos_token_id
        expected = F.normalize(encoder.projection(hidden[row, length]), dim=0)
        torch.testing.assert_close(encoder(**batch)[row], expected)


def test_a_caption_has_the_same_embedding_however_far_its_batch_is_padded(tokenize):
    encoder = TextEncoder(TINY_GPT2, peft=Lora(r=2)).eval()
    torch.testing.assert_close(encoder(**tokenize(CAPTIONS))[1:2], encoder(**tokenize(CAPTIONS[1:2])))


@pytest.mark.parametrize("backbone", [TINY_GPT2, TINY_LLAMA])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_and_projection_get_gradients_and_none_is_zero(backbone, checkpointing, tokenize):
    encoder = TextEncoder(backbone, peft=Lora(r=2), gradient_checkpointing=checkpointing).train()
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:  # starts at zero, which would make the gradient of lora_A vanish
            torch.nn.init.normal_(parameter)
    weights = torch.randn(512, generator=torch.Generator().manual_seed(0))
    (encoder(**tokenize(CAPTIONS)) @ weights).sum().backward()
    trained = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in encoder.named_parameters() if "lora_" in n or n.startswith("projection.")}
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters() if p.grad is not None)


def test_default_lora_targets_are_those_of_cleft():
    gpt2 = TextEncoder(TINY_GPT2, peft=Lora(r=2))
    llama = TextEncoder(TINY_LLAMA, peft=Lora(r=2))
    adapted = [
        {n.split(".lora_A")[0].rsplit(".", 1)[-1] for n, _ in e.named_modules() if ".lora_A" in n}
        for e in (gpt2, llama)
    ]
    assert adapted == [{"c_attn"}, {"q_proj", "v_proj"}]


def test_the_fingerprint_tells_weights_apart_and_survives_saving_and_precision(tmp_path):
    encoder = TextEncoder(TINY_GPT2, peft="none", seed=1)
    assert encoder.fingerprint != TextEncoder(TINY_GPT2, seed=2).fingerprint
    encoder.backbone.save_pretrained(tmp_path / "gpt2")
    assert TextEncoder(str(tmp_path / "gpt2"), peft=Lora(r=2)).fingerprint == encoder.fingerprint
    assert TextEncoder(str(tmp_path / "gpt2"), dtype="bfloat16").fingerprint == encoder.fingerprint


def test_bfloat16_weights_give_float32_embeddings_near_those_of_float32(tokenize):
    exact, rounded = TextEncoder(TINY_GPT2).eval(), TextEncoder(TINY_GPT2, dtype="bfloat16").eval()
    batch = tokenize(CAPTIONS)
    assert rounded(**batch).dtype == torch.float32
    torch.testing.assert_close(rounded(**batch), exact(**batch), atol=0.02, rtol=0)


METHODS = [Lora(r=2), Dora(r=2), Ia3(), Prefix(3), AdaLora(init_r=3, target_r=2), "none", "full"]


def gradients(encoder, batch, context=None):
    """Embeddings of a batch, and the gradients of every trained parameter under a fixed loss."""
    weights = torch.randn(encoder.embedding_dim, generator=torch.Generator().manual_seed(0))
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name or "lora_E" in name:  # start at zero, which would make other gradients vanish
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    embedding = encoder(**batch, context=context)
    (embedding @ weights.to(embedding.dtype)).pow(2).sum().backward()
    return embedding.detach(), {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backbone", [TINY_GPT2, TINY_LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("context", [None, (5, 16), (3, 5, 16)], ids=["no_context", "shared", "per_class"])
def test_sharing_the_common_beginning_changes_nothing(backbone, method, context, tokenize):
    batch = tokenize(["this is a chest x ray of a patient with edema", "this is a chest", "this is a chest x ray"])
    before = None if context is None else torch.randn(context, generator=torch.Generator().manual_seed(0)).double()
    plain = TextEncoder(backbone, embedding_dim=8, peft=method, row_tokens=None).eval().double()
    packed = TextEncoder(backbone, embedding_dim=8, peft=method, row_tokens=14).eval().double()
    (a, grads_a), (b, grads_b) = gradients(plain, batch, before), gradients(packed, batch, before)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert grads_a.keys() == grads_b.keys()
    for name, gradient in grads_a.items():
        rounding = 1e-5 * float(gradient.abs().max())  # Llama's norms round to float32 whatever they are given
        torch.testing.assert_close(gradient, grads_b[name], atol=rounding, rtol=0, msg=name)
    assert all(gradient.abs().sum() > 0 for name, gradient in grads_a.items() if "lora_" in name or "ia3" in name)


def test_unfrozen_parts_are_trained_beside_the_adapters():
    names = {n for n, p in TextEncoder(TINY_GPT2, unfreeze=["embeddings"]).named_parameters() if p.requires_grad}
    assert {n for n in names if "lora_" not in n} == {
        "backbone.base_model.model.wte.weight",
        "projection.weight",
        "projection.bias",
    }
    norms = {n for n, p in TextEncoder(TINY_GPT2, unfreeze=["layer_norms"]).named_parameters() if p.requires_grad}
    assert sum(".ln_" in n for n in norms) == 2 * (2 * 2 + 1)


def test_trained_parameters_are_float32_however_the_frozen_ones_are_stored():
    encoder = TextEncoder(TINY_GPT2, dtype="bfloat16", unfreeze=["layer_norms"])
    assert {p.dtype for p in encoder.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in encoder.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("backbone", [TINY_GPT2, TINY_LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("unfreeze", [["embeddings"], ["embeddings", "layer_norms"]], ids=len)
def test_frozen_layers_of_fewer_bits_take_what_trained_ones_give(dtype, unfreeze, method, backbone, tokenize):
    batch = tokenize(CAPTIONS)
    learnt = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    exact = TextEncoder(backbone, embedding_dim=8, peft=method, unfreeze=unfreeze).eval()
    for row_tokens in (None, 512):
        encoder = TextEncoder(
            backbone, embedding_dim=8, peft=method, unfreeze=unfreeze, dtype=dtype, row_tokens=row_tokens
        ).eval()
        assert {p.dtype for p in encoder.parameters() if p.requires_grad} == {torch.float32}
        for context in (None, learnt):
            expected = exact(**batch, context=context)
            for autocast in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    embedding = encoder(**batch, context=context)
                torch.testing.assert_close(embedding.float(), expected, atol=0.05, rtol=0)
        embedding.float().square().cumsum(dim=1).sum().backward()
        assert encoder.language_model.get_input_embeddings().weight.grad.any() or method == "full"


def test_a_context_longer_than_the_window_is_refused(tokenize):
    with pytest.raises(BundleError, match=r"context of 60 and captions of \d+ tokens.* window of 64"):
        TextEncoder(TINY_GPT2)(**tokenize(CAPTIONS), context=torch.zeros(60, 16))


def test_an_empty_caption_is_refused(tokenize):
    with pytest.raises(BundleError, match="a caption is empty"):
        TextEncoder(TINY_GPT2)(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))


def test_a_row_without_eos_outside_the_mask_is_refused(tokenize):
    batch = tokenize(CAPTIONS[1:2])
    with pytest.raises(BundleError, match="fills its row"):
        TextEncoder(TINY_GPT2)(batch["input_ids"], torch.ones_like(batch["attention_mask"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "./no/folder"}, "text_backbone: the folder './no/folder' does not exist"),
        ({"peft": Lora(target_modules=["q_proj"])}, "q_proj match no layer; the linear layers are c_attn"),
        ({"peft": "rola"}, "peft: expected one of lora, dora, ia3, prefix, adalora, none, full, got 'rola'"),
        ({"unfreeze": ["heads"]}, "unfreeze: expected any of embeddings, layer_norms, got 'heads'"),
        ({"dtype": "float8"}, "dtype: expected one of float32, bfloat16, float16, 4bit, got 'float8'"),
        ({"dtype": "4bit"}, "dtype: 4bit needs a CUDA GPU"),
        ({"peft": "prefix", "gradient_checkpointing": True}, "prefix: its keys and values do not go with"),
    ],
)
def test_wrong_use_is_refused_in_one_line(arguments, message):
    with pytest.raises(BundleError, match=message) as caught:
        TextEncoder(**({"backbone": TINY_GPT2} | arguments))
    assert "\n" not in str(caught.value)


def test_no_language_model_head_is_built(tokenize):
    encoder = TextEncoder(TINY_GPT2, peft="none")
    assert encoder.backbone.config._attn_implementation == "sdpa"
    assert not any("lm_head" in name for name, _ in encoder.named_parameters())
    assert type(encoder.backbone) is type(AutoModel.from_config(encoder.backbone.config))
