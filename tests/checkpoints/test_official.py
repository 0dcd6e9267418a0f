import argparse

import peft
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaModel

from cleft_bundle.checkpoints.official import (
    BIOMEDLM,
    _gpt2,
    _HyperParameters,
    import_official,
    is_biomedlm,
    save_language_model,
)
from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss
from tests.checkpoints.released import (
    DIM,
    HEADS,
    HYPER,
    IDS,
    LEVELS,
    LLM_WIDTH,
    MASK,
    WIDTH,
    dino_keys,
    embed,
    linear_keys,
    make_gpt2,
    make_state,
    make_vit,
    prefixed,
    prompt_tuned,
    randomised,
    writer,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def vit():
    return make_vit()


@pytest.fixture
def gpt2():
    return make_gpt2()


@pytest.fixture
def state(vit, gpt2):
    return make_state(vit, gpt2)


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


@torch.no_grad()
def text_reference(state, gpt2, mask=MASK, ids=IDS):
    """Text embeddings by a plain GPT-2 whose weights have the low-rank updates added by hand."""
    base = gpt2.get_base_model()
    plain = GPT2Model(base.config).eval()
    merged = {}
    for name, tensor in base.state_dict().items():
        if ".lora_" in name or "lm_head" in name:
            continue
        name = name.removeprefix("transformer.")  # noqa: PLW2901
        merged[name.replace(".base_layer.", ".")] = tensor.clone()
    for name in merged:
        factors = [
            tensor
            for key, tensor in base.state_dict().items()
            if ".lora_" in key and key.removeprefix("transformer.").split(".lora_")[0] + ".weight" == name
        ]
        if factors:
            merged[name] += (factors[1] @ factors[0]).T * 12 / len(factors[0])
    plain.load_state_dict(merged)
    hidden = plain(input_ids=ids, attention_mask=mask).last_hidden_state[torch.arange(len(ids)), mask.sum(dim=1)]
    weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
    return F.normalize(hidden @ weight.T + bias, dim=1)


@torch.no_grad()
def image_reference(state, vit, image):
    """Image embeddings by the class token of the Hugging Face model and a linear projection."""
    weight, bias = (state[f"img_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
    return F.normalize(vit(image).last_hidden_state[:, 0] @ weight.T + bias, dim=1)


@pytest.mark.shared_data
@pytest.mark.parametrize("pooling", ["pool", "cls"])
def test_the_fixture_gives_the_outputs_of_the_authors_code(shared_data, tmp_path, pooling):
    fixture = torch.load(shared_data / "fixtures" / "official_tiny.pt", weights_only=True)
    checkpoint, inputs, expected = fixture["checkpoint"], fixture["inputs"], fixture["expected"]
    checkpoint["hyper_parameters"]["pool_feat"] = pooling == "pool"
    torch.save(checkpoint, tmp_path / "official.ckpt")
    imported = import_official(tmp_path / "official.ckpt")
    with torch.no_grad():
        output = imported.network(inputs["images"], inputs["input_ids"], inputs["attention_mask"])
        loss = ContrastiveLoss("index")(output, torch.arange(4))
    image, text, scale, _ = output
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(image, expected[f"image_embeds_{pooling}"], **close)
    torch.testing.assert_close(text, expected["text_embeds"], **close)
    torch.testing.assert_close(scale * image @ text.T, expected[f"logits_{pooling}"], **close)
    torch.testing.assert_close(loss, expected[f"loss_{pooling}"], **close)
    assert [entry.key for entry in imported.report] == list(checkpoint["state_dict"])
    assert {entry.status for entry in imported.report} == {"mapped"}
    assert imported.assumed == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("dinov2_with_registers", {"num_hidden_layers": 3}),
        ("dinov2", {"image_size": 56}),
        ("dinov2", {"use_swiglu_ffn": True}),
    ],
)
@pytest.mark.parametrize(("r", "layers"), [(3, 1), (5, 3)])
def test_architecture_follows_from_the_shapes(kind, values, r, layers, state, write):
    vit, gpt2 = make_vit(kind, **values), make_gpt2(r=r, layers=layers)
    state = {key: t for key, t in state.items() if ".model." not in key}
    state |= dino_keys(vit) | prefixed("text_encoder_q.model.", gpt2)
    network = import_official(write(state)).network
    image = torch.randn(2, 3, 42, 42)
    images, texts = embed(network, image)
    torch.testing.assert_close(images, image_reference(state, vit, image))
    torch.testing.assert_close(texts, text_reference(state, gpt2))
    assert network.scale.item() == pytest.approx(float(torch.tensor(2.5).exp()))


def test_the_scale_is_not_clamped_as_in_the_release(state, write):
    network = import_official(write(state | {"logit_scale": torch.tensor(6.0)})).network
    assert network.scale.item() == pytest.approx(403.43, abs=0.01)


@pytest.mark.parametrize("wrap", [lambda hyper: argparse.Namespace(**hyper), dict])
def test_hyper_parameters_may_be_namespaces(wrap, state, write):
    settings = import_official(write(state, wrap(HYPER | {"tiny_vit": argparse.Namespace(num_heads=HEADS)}))).settings
    assert settings["pooling"] == "cls"
    assert settings["image_backbone"]["num_attention_heads"] == HEADS
    assert (settings["peft"]["lora_alpha"], settings["peft"]["lora_dropout"]) == (12, 0.05)


def test_what_the_file_does_not_say_is_assumed_openly(state, write):
    imported = import_official(write(state, {"tiny_gpt2": {"n_head": 3}}))
    assert imported.assumed == ["alpha = 32", "dropout = 0.1", "num_heads = 1", "pool_feat = True"]
    assert imported.settings["pooling"] == "tokens_prenorm"


def test_an_unknown_number_of_heads_is_refused(state, write):
    with pytest.raises(BundleError, match=r"official\.ckpt: hyper_parameters do not say how many heads .* 24 wide"):
        import_official(write(state, {}))


def test_a_language_model_with_head_and_masks(state, write):
    gpt2 = make_gpt2(GPT2LMHeadModel)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(LEVELS)}
    state |= prefixed("text_encoder_q.model.", gpt2)
    extra = {
        f"{LEVELS}transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32, dtype=torch.bool),
        f"{LEVELS}transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        "img_encoder_q.local_embed.conv.weight": torch.ones(4, 4),
        "text_encoder_q.local_embed.head.0.weight": torch.ones(4, 4),
    }
    imported = import_official(write(state | extra))
    ignored = {entry.key: entry.detail for entry in imported.report if entry.status == "ignored"}
    assert set(ignored) == {f"{LEVELS}lm_head.weight", *extra}
    assert ignored["img_encoder_q.local_embed.conv.weight"] == "projection of local features, which CLEFT never uses"
    assert all(ignored.values())
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], text_reference(state, gpt2))


def mlp_keys(tower, features, hidden):
    mlp = randomised(
        torch.nn.Sequential(
            torch.nn.Linear(features, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, DIM),
            torch.nn.BatchNorm1d(DIM, affine=False),
        )
    )
    for index in (1, 4):
        mlp[index].running_var.abs_().add_(0.1)
    return mlp, prefixed(f"{tower}.global_embed.head.", mlp)


def with_head(state, head):
    towers = {key.split(".")[0] for key in head}
    kept = {k: t for k, t in state.items() if not any(k.startswith(f"{tower}.global_embed") for tower in towers)}
    return kept | head


@pytest.mark.parametrize("hidden", [2048, 20])
def test_a_head_of_two_layers(state, vit, write, hidden):
    mlp, keys = mlp_keys("img_encoder_q", WIDTH, hidden)
    imported = import_official(write(with_head(state, keys)))
    image = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected = F.normalize(mlp(vit(image).last_hidden_state[:, 0]), dim=1)
    torch.testing.assert_close(embed(imported.network, image)[0], expected)
    assert imported.settings["network_def#image_encoder#projection"] == hidden


def test_a_text_head_of_two_layers(state, gpt2, write):
    mlp, keys = mlp_keys("text_encoder_q", LLM_WIDTH, 20)
    imported = import_official(write(with_head(state, keys)))
    with torch.no_grad():
        hidden = gpt2(input_ids=IDS, attention_mask=MASK).last_hidden_state[[0, 1], MASK.sum(dim=1)]
        expected = F.normalize(mlp(hidden), dim=1)
    torch.testing.assert_close(embed(imported.network, torch.randn(2, 3, 42, 42))[1], expected)
    assert imported.settings["embedding_dim"] == DIM


def test_a_learnt_prompt_stands_before_the_caption(state, gpt2, write):
    prompt = torch.randn(4, LLM_WIDTH)
    imported = import_official(write(prompt_tuned(state, prompt)))
    assert imported.settings["context_length"] == 4
    with torch.no_grad():
        inputs = torch.cat([prompt.expand(2, -1, -1), gpt2.get_base_model().wte(IDS)], dim=1)
        mask = torch.cat([torch.ones(2, 4, dtype=torch.long), MASK], dim=1)
        hidden = gpt2(inputs_embeds=inputs, attention_mask=mask).last_hidden_state[[0, 1], mask.sum(dim=1)]
        weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
        expected = F.normalize(hidden @ weight.T + bias, dim=1)
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], expected)


def test_prefix_tuning_is_refused(state, write):
    with pytest.raises(BundleError, match="prefix tuning is not supported"):
        import_official(write(prompt_tuned(state, torch.randn(4, 7 * LLM_WIDTH))))


def test_the_llama_family(state, write):
    config = LlamaConfig(
        **{"vocab_size": 50, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "rms_norm_eps": 1e-5},
    )
    lora = peft.LoraConfig(r=2, lora_alpha=12, target_modules=["q_proj", "v_proj"])
    llama = randomised(peft.get_peft_model(LlamaModel(config), lora))
    state = {key: tensor for key, tensor in state.items() if not key.startswith("text_encoder_q")}
    state |= prefixed("text_encoder_q.model.", llama) | linear_keys("text", 256)
    imported = import_official(write(state))
    with torch.no_grad():
        hidden = llama(input_ids=IDS, attention_mask=MASK).last_hidden_state[[0, 1], MASK.sum(dim=1)]
        weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
        expected = F.normalize(hidden @ weight.T + bias, dim=1)
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], expected, rtol=1e-4, atol=1e-5)


def test_every_leftover_key_is_named(state, write):
    extra = {
        "img_encoder_q.model.blocks.0.unknown": torch.ones(1),
        "text_encoder_q.global_embed.tail.weight": torch.ones(1),
        f"{LEVELS}h.0.attn.c_attn.ia3_l.default": torch.ones(1),
    }
    for keys in (list(extra)[:2], list(extra)[2:]):
        with pytest.raises(BundleError, match=rf"official\.ckpt: {len(keys)} keys belong to nothing") as caught:
            import_official(write(state | {key: extra[key] for key in keys}))
        assert all(key in str(caught.value) for key in keys)


def test_two_keys_for_one_parameter_are_refused(state, write):
    again = "text_encoder_q.model.base_model.base_model.model.wte.weight"
    with pytest.raises(BundleError, match=f"1 keys belong to nothing.*{again}"):
        import_official(write(state | {again: torch.ones(1)}))


@pytest.mark.parametrize(
    "key",
    [
        "img_encoder_q.model.blocks.1.ls2.gamma",
        f"{LEVELS}h.1.ln_1.bias",
        "logit_scale",
        "img_encoder_q.model.norm.bias",
    ],
)
def test_a_parameter_that_receives_nothing_is_refused(key, state, write):
    del state[key]
    with pytest.raises(BundleError, match=r"1 parameters of the network receive nothing"):
        import_official(write(state))


def test_another_shape_is_refused(state, write):
    state["img_encoder_q.model.norm.bias"] = torch.ones(3)
    with pytest.raises(BundleError, match=r"norm\.bias gives .*layernorm\.bias the shape \(3,\), expected \(64,\)"):
        import_official(write(state))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read"),
        (b"not a checkpoint", "cannot be read"),
        ({"weights": 1}, "no Lightning checkpoint"),
        ({"state_dict": {}, "hyper_parameters": {"loss": torch.nn.MSELoss()}}, "cannot be read"),
        ({"state_dict": {}}, "neither of the GPT-2 nor of the Llama family"),
    ],
)
def test_a_file_of_another_kind_is_one_line_that_names_it(content, message, tmp_path):
    path = tmp_path / "official.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BundleError, match=rf"official\.ckpt: .*{message}") as caught:
        import_official(path)
    assert "\n" not in str(caught.value)


def test_the_language_model_keeps_its_precision(state, write, tmp_path):
    for key in state:
        if key.startswith(LEVELS) and "lora" not in key:
            state[key] = state[key].bfloat16()
    imported = import_official(write(state))
    save_language_model(imported.network, tmp_path / "llm")
    assert imported.network.text_encoder.dtype == torch.bfloat16
    assert AutoModel.from_pretrained(tmp_path / "llm", dtype="auto").dtype == torch.bfloat16
    assert imported.settings["text_dtype"] == "bfloat16"


def test_a_small_model_is_not_taken_for_biomedlm(state, write):
    imported = import_official(write(state))
    assert not is_biomedlm(imported.network)
    assert imported.settings["tokenizer_source"] != BIOMEDLM


def test_biomedlm_is_known_by_its_shapes():
    shapes = {"wte.weight": (28896, 2560), "wpe.weight": (1024, 2560), "h.0.mlp.c_fc.weight": (2560, 10240)}
    shapes |= {f"h.{layer}.ln_1.bias": (2560,) for layer in range(32)}
    tensors = {f"text_encoder.language_model.{name}": torch.empty(*s, device="meta") for name, s in shapes.items()}
    config = _gpt2(tensors, _HyperParameters({}))
    assert (config["n_layer"], config["n_head"], config["n_positions"]) == (32, 20, 1024)
    assert config["scale_attn_by_inverse_layer_idx"]  # its published config says so, and no tensor does
