"""Captions in shared rows against captions in rows of their own, for the causal language models of transformers.

Left out are those that cannot be built small or alone: vision, audio and encoder-decoder models (bart, git, whisper),
those whose configs demand sizes of their own (bamba, blt, deepseek_v3, dots1, jamba, longcat_flash, reformer, zamba, …)
and hybrids whose plain forward pass fails or takes long without their kernels (falcon_h1, nemotron_h, qwen3_next, …).
deepseek_v4 looks tokens up in more than one table, and so takes no learnt context.
"""

import pytest
import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig

from cleft_bundle.networks import TextEncoder
from tests.conftest import TINY_GPT2

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads", "num_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 2),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    **{"num_key_value_heads": 1, "head_dim": 8, "rotary_dim": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "vocab_size": 64,
}
OWN_SIZES = {
    "codegen": {"n_head": 4, "rotary_dim": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 9},
    "diffllama": {"num_key_value_heads": 2},
    "mistral": {"sliding_window": 9},
}
# fmt: off
PACKED = [
    "afmoe", "apertus", "arcee", "aria_text", "beam", "biogpt", "bitnet", "cohere", "cohere2", "cohere2_moe",
    "ctrl", "cwm", "doge", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon",
    "flex_olmo", "flint", "gemma", "gemma2", "gemma3_text", "gemma4_unified_text", "glm", "glm4", "glm4_moe",
    "gpt2", "gpt_bigcode", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granite_swa",
    "granitemoe", "granitemoe_swa", "granitemoeshared", "helium", "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe",
    "hy_v3", "hyperclovax", "internlm3", "iquestcoder", "jais2", "jetmoe", "kolibri1", "laguna", "lfm2", "llama",
    "llama4_text", "mellum", "mimo_v2_flash", "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3",
    "mistral", "mixtral", "modernbert-decoder", "moshi", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe",
    "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3",
    "solar_open", "stablelm", "starcoder2", "vaultgemma", "xglm", "codegen", "diffllama", "gpt_neo",
]
# fmt: on
# fmt: off
#: Those whose captions may not share rows: no positions to give, or recurrent states.
PADDED = [
    "bloom", "falcon_mamba", "inkling_text", "mamba", "minimax", "mpt",
    "olmo_hybrid", "openai-gpt", "rwkv",
]
# fmt: on
CAPTIONS = [[5, 6, 7, 8], [5, 6, 7, 9, 10, 11], [5, 6], [12, 13, 14, 15, 16]]


def config(kind):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"the installed transformers knows no {kind}")
    known = AutoConfig.for_model(kind).to_dict()
    values = {key: value for key, value in SIZES.items() if key in known}
    return {"model_type": kind} | values | OWN_SIZES.get(kind, {})


def kernels(values):
    """Eager attention, which every architecture has, and SDPA where it has that too."""
    values = {key: value for key, value in values.items() if key != "model_type"} | {"kind": values["model_type"]}
    model = MODEL_MAPPING[type(AutoConfig.for_model(values.pop("kind"), **values))]
    return ["eager", *(["sdpa"] if model._supports_sdpa else [])]


def batch():
    ids = torch.tensor([caption + [0] * (8 - len(caption)) for caption in CAPTIONS])
    length = torch.tensor([len(caption) for caption in CAPTIONS])
    return {"input_ids": ids, "attention_mask": (torch.arange(8) < length[:, None]).long()}


def gradients(encoder, context):
    """Embeddings, and the gradient of every parameter and of the context."""
    before = None
    if context:
        before = torch.randn(3, encoder.hidden_size, generator=torch.Generator().manual_seed(0))
        before.requires_grad_()
    encoder.zero_grad()
    embedding = encoder(**batch(), context=before)
    weights = torch.randn(8, generator=torch.Generator().manual_seed(1))
    (embedding @ weights).pow(2).sum().backward()
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    return embedding.detach(), found | ({"context": before.grad} if context else {})


@pytest.mark.parametrize("kind", PACKED)
def test_captions_in_shared_rows_do_not_see_each_other(kind):
    values = config(kind)
    for kernel in kernels(values):
        plain, packed = (
            TextEncoder(values | {"attn_implementation": kernel}, embedding_dim=8, peft="full", row_tokens=row)
            for row in (None, 20)
        )
        assert packed.row_tokens, f"{kind} with {kernel} is not packed"
        plain, packed = plain.eval(), packed.eval()  # layers of experts do not compute in double precision
        for context in (False, True):
            (expected, wanted), (embedding, found) = gradients(plain, context), gradients(packed, context)
            torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0, msg=f"{kind} {kernel} {context}")
            largest = max(float(gradient.abs().max()) for gradient in wanted.values())
            assert wanted.keys() == found.keys()
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, atol=1e-3 * largest, rtol=0, msg=f"{kind} {name}")


@pytest.mark.parametrize("kind", PADDED)
def test_where_captions_would_see_each_other_they_are_padded_and_the_log_says_so(kind, caplog):
    encoder = TextEncoder(config(kind), embedding_dim=8, peft="none")
    assert encoder.row_tokens is None
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("cleft_bundle")]
    assert line.startswith(f"captions are not packed for {kind} from a config: ")
    assert "\n" not in line


def test_rows_are_no_wider_than_a_window_and_longer_captions_have_rows_of_their_own():
    encoder = TextEncoder(config("mistral"), embedding_dim=8, peft="none", row_tokens=512).eval()
    assert encoder.row_tokens == 9
    plain = TextEncoder(config("mistral"), embedding_dim=8, peft="none", row_tokens=None).eval()
    ids = torch.arange(1, 31).view(2, 15) % 60
    ids[:, -1] = 0
    mask = (torch.arange(15) < 14).long().expand(2, -1)
    torch.testing.assert_close(encoder(ids, mask), plain(ids, mask))


def test_a_model_without_a_limit_on_positions_takes_any_number_of_tokens():
    encoder = TextEncoder(config("mamba"), embedding_dim=8, peft="none").eval()
    ids = torch.arange(400)[None] % 63 + 1
    assert encoder(ids, (torch.arange(400) < 399).long()[None]).shape == (1, 8)


def test_trying_leaves_a_tower_as_it_was():
    encoder = TextEncoder(TINY_GPT2, peft="full")
    assert all(module.training for module in encoder.modules())
    assert all(parameter.grad is None for parameter in encoder.parameters())
